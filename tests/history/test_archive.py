"""The history: readable at once, written once, durable when it says so, honest when it cannot."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from history_rig import job, lot

from cluster.clock import ManualClock
from cluster.history import FinishedJob, History, HistoryError, PastAttempt, archive
from cluster.history.ended import Ended
from cluster.history.inserts import BAND_BITS
from cluster.history.store import Store

DAY_MS = 86_400_000
BAND = 1 << BAND_BITS


def ids(rows: list[FinishedJob]) -> list[int]:
    return [row.job_id for row in rows]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node" / "history.sqlite"


@pytest.fixture
async def history(path: Path) -> AsyncIterator[History]:
    opened = History.open(path, retention_ms=0)
    yield opened
    await opened.close()


class FullDisk:
    """Refuses every write until `free`; counts the refusals."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._loop = asyncio.get_running_loop()
        self._refusals: asyncio.Queue[None] = asyncio.Queue()
        self._full = True
        write = Store.write

        def write_or_refuse(store: Store, rows: Ended, index_last: int, **more: Any) -> None:
            if self._full:
                self._loop.call_soon_threadsafe(self._refusals.put_nowait, None)
                raise HistoryError("history cannot be written (database or disk is full)")
            write(store, rows, index_last, **more)

        monkeypatch.setattr(Store, "write", write_or_refuse)
        monkeypatch.setattr(archive, "RETRY_SECONDS", 0.01)

    async def noticed(self) -> None:
        """Returns when a write failed and the next one was tried: rows are back in the buffer."""
        for _ in range(3):
            await asyncio.wait_for(self._refusals.get(), 60)

    def free(self) -> None:
        self._full = False


@pytest.fixture
async def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


async def test_a_row_is_readable_as_soon_as_it_is_added_and_after_it_is_written(
    history: History,
) -> None:
    row = job(
        7,
        status="failed",
        tags=("a", "b"),
        output=b"1",
        error_type="ValueError",
        attempts=(PastAttempt(1, 3, 10, 20, "failed", "ValueError", "no"),),
    )
    history.add(1, lot([row]))
    assert history.get(7) == row
    assert await history.lookup(7) == row
    await history.flushed(1)
    assert history.get(7) is None
    assert await history.lookup(7) == row
    assert await history.lookup(8) is None


async def test_rows_survive_a_restart(path: Path) -> None:
    history = History.open(path, 0)
    history.add(4, lot([job(n, 4) for n in range(1, 3000)]))
    await history.close()
    again = History.open(path, 0)
    assert await again.lookup(2999) == job(2999, 4)
    assert again.stats()["index_written"] == 4
    await again.close()


async def test_flushed_rows_are_in_the_file_before_it_returns(history: History, path: Path) -> None:
    history.add(9, lot([job(1, 9)]))
    await history.flushed(9)
    other = Store(path)
    assert other.find(1) == job(1, 9)
    assert other.index_last() == 9
    other.close()


async def test_flushed_returns_for_entries_that_finished_nothing(history: History) -> None:
    history.add(3, lot([job(1, 3)]))
    async with asyncio.timeout(60):
        await history.flushed(1000)


async def test_a_replay_changes_nothing(path: Path) -> None:
    entries = [
        [job(n, index) for n in range(index * 700, index * 700 + 700)] for index in (1, 2, 3)
    ]
    history = History.open(path, 0)
    for rows in entries:
        history.add(rows[0].index, lot(rows))
    await history.close()
    history = History.open(path, 0)
    for rows in entries:
        history.add(rows[0].index, lot(rows))
    history.add(4, lot([job(9000, 4)]))
    await history.flushed(4)
    assert history.stats()["rows_written"] == 1
    assert len(await history.list(limit=5000)) == 2101
    await history.close()


async def test_a_replay_restores_rows_that_the_file_lacks(path: Path) -> None:
    history = History.open(path, 0)
    history.add(5, lot([job(1, 5)]))
    await history.close()
    history = History.open(path, 0)
    history.add(4, lot([job(2, 4)]))
    await history.flushed(5)
    assert await history.lookup(2) == job(2, 4)
    await history.close()


async def test_a_retried_job_replaces_its_first_end_and_an_old_replay_does_not(path: Path) -> None:
    dead, done = job(5, 10, "failed", queue="mail"), job(5, 20, "completed", queue="mail")
    history = History.open(path, 0)
    history.add(10, lot([dead]))
    await history.flushed(10)
    history.add(20, lot([done, job(6, 20)]))
    assert await history.lookup(5) == done
    assert await history.list(status="failed") == []
    await history.close()
    history = History.open(path, 0)
    assert await history.lookup(5) == done
    assert await history.list(status="failed") == []
    assert await history.list(queue="mail") == [done]
    history.add(10, lot([dead]))
    assert await history.lookup(5) == done
    await history.flushed(10)
    assert await history.lookup(5) == done
    await history.close()


async def test_within_the_buffer_the_higher_index_wins(history: History) -> None:
    history.add(20, lot([job(5, 20)]))
    history.add(10, lot([job(5, 10, "failed"), job(6, 10)]))
    await history.flushed(20)
    row = await history.lookup(5)
    assert row is not None
    assert row.index == 20
    assert await history.lookup(6) == job(6, 10)


async def test_listing_is_newest_first_across_bands_and_the_buffer(history: History) -> None:
    numbers = [1, 2, BAND - 1, BAND, BAND + 1, 40 * BAND, 90 * BAND + 5]
    history.add(1, lot([job(n) for n in numbers]))
    await history.flushed(1)
    history.add(2, lot([job(3, 2), job(50 * BAND, 2)]))
    expected = sorted([*numbers, 3, 50 * BAND], reverse=True)
    assert ids(await history.list()) == expected
    assert ids(await history.list(limit=4)) == expected[:4]
    assert ids(await history.list(before_id=expected[3], limit=3)) == expected[4:7]
    assert await history.list(before_id=1) == []


async def test_paging_visits_every_row_once(history: History) -> None:
    numbers = list(range(1, 3 * BAND, 7)) + list(range(10**6, 10**6 + 60 * BAND, BAND + 1))
    for index, start in enumerate(range(0, len(numbers), 300)):
        history.add(index + 1, lot([job(n, index + 1) for n in numbers[start : start + 300]]))
    await history.flushed(10**6)
    seen: list[int] = []
    before_id: int | None = None
    while rows := await history.list(before_id=before_id, limit=250):
        seen += ids(rows)
        before_id = rows[-1].job_id
    assert seen == sorted(numbers, reverse=True)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"status": "failed"}, [9, 4]),
        ({"status": "skipped"}, [2]),
        ({"status": "odd"}, []),
        ({"queue": "mail"}, [9, 3]),
        ({"name": "resize"}, [4]),
        ({"tag": "eu"}, [3, 2]),
        ({"tag": "e"}, []),
        ({"queue": "mail", "status": "failed"}, [9]),
        ({"queue": "mail", "name": "resize"}, []),
    ],
)
@pytest.mark.parametrize("written", [True, False])
async def test_filters(
    history: History, filters: dict[str, str], expected: list[int], written: bool
) -> None:
    rows = [
        job(2, status="skipped", tags=("eu",)),
        job(3, queue="mail", tags=("us", "eu")),
        job(4, status="failed", name="resize"),
        job(9, status="failed", queue="mail"),
    ]
    history.add(1, lot(rows))
    if written:
        await history.flushed(1)
    assert ids(await history.list(**filters)) == expected  # type: ignore[arg-type]


async def test_a_chunk_with_too_many_labels_is_still_found(history: History) -> None:
    history.add(1, lot([job(n, name=f"a-rather-long-name-{n}") for n in range(1, 900)]))
    await history.flushed(1)
    assert ids(await history.list(name="a-rather-long-name-77")) == [77]


async def test_old_jobs_are_pruned_in_the_background(path: Path) -> None:
    clock = ManualClock(100 * DAY_MS)
    history = History.open(path, 30 * DAY_MS, clock)
    for day in (60, 69, 71, 99):
        history.add(day, lot([job(day, day, finished_ms=day * DAY_MS)]))
        await history.flushed(day)
    async with asyncio.timeout(60):
        while history.stats()["pruned_chunks"] < 2:
            clock.advance(61_000)
            await history.flushed(99)
    assert ids(await history.list()) == [99, 71]
    await history.close()


async def test_without_retention_nothing_is_pruned(path: Path) -> None:
    history = History.open(path, 0, ManualClock(10**6 * DAY_MS))
    history.add(1, lot([job(1, finished_ms=1)]))
    for _ in range(3):
        await history.flushed(1)
    assert ids(await history.list()) == [1]
    await history.close()


async def test_a_full_disk_keeps_rows_in_memory_and_is_logged_once(
    path: Path, disk: FullDisk, caplog: pytest.LogCaptureFixture
) -> None:
    history = History.open(path, 0)
    history.add(1, lot([job(1)]))
    await disk.noticed()
    history.add(2, lot([job(2, 2)]))
    waiting = asyncio.create_task(history.flushed(2))
    await disk.noticed()
    assert not waiting.done()
    assert ids(await history.list()) == [2, 1]
    assert history.stats()["failing"]
    disk.free()
    await waiting
    assert history.stats()["rows_buffered"] == 0
    assert not history.stats()["failing"]
    assert ids(await history.list()) == [2, 1]
    errors = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert len(errors) == 1
    await history.close()


async def test_beyond_its_bound_flushed_refuses_and_a_restart_with_replay_heals(
    path: Path,
    disk: FullDisk,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(archive, "BUFFER_ROWS_MAX", 3)
    history = History.open(path, 0)
    history.add(1, lot([job(1)]))
    await disk.noticed()
    history.add(2, lot([job(2, 2)]))
    history.add(3, lot([job(n, 3) for n in range(3, 8)]))
    history.add(4, lot([job(8, 4)]))
    assert history.stats()["rows_lost"] == 5
    disk.free()
    await history.flushed(2)
    with pytest.raises(HistoryError, match="since log index 3: free space"):
        await history.flushed(4)
    assert sum(entry.levelno == logging.CRITICAL for entry in caplog.records) == 1
    await history.close()
    monkeypatch.undo()
    history = History.open(path, 0)
    for index, numbers in ((3, range(3, 8)), (4, range(8, 9))):
        history.add(index, lot([job(n, index) for n in numbers]))
    await history.flushed(4)
    assert ids(await history.list()) == list(range(8, 0, -1))
    await history.close()


async def test_payload_bytes_are_bounded_too_while_the_disk_is_full(
    history: History, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "BUFFER_BYTES_MAX", 10_000)
    history.add(1, lot([job(1)]))
    await disk.noticed()
    history.add(2, lot([job(2, 2, payload=b"x" * 20_000)]))
    history.add(3, lot([job(3, 3)]))
    assert history.get(2) is None
    assert history.get(3) is not None
    disk.free()


async def test_close_on_a_full_disk_ends_and_tells_who_waits(path: Path, disk: FullDisk) -> None:
    history = History.open(path, 0)
    history.add(1, lot([job(1)]))
    await disk.noticed()
    waiting = asyncio.create_task(history.flushed(1))
    await asyncio.sleep(0)
    await history.close()
    with pytest.raises(HistoryError, match="closed unwritten"):
        await waiting
    disk.free()


async def test_close_twice_and_flush_after_close(path: Path) -> None:
    history = History.open(path, 0)
    history.add(1, lot([job(1)]))
    await history.close()
    await history.close()
    with pytest.raises(HistoryError, match="is closed"):
        await history.flushed(1)


async def test_many_writers_of_one_id_space_lose_nothing(history: History) -> None:
    """Adds while the writer swaps its buffers underneath."""
    for index in range(1, 400):
        history.add(index, lot([job(index * 50 + n, index) for n in range(50)]))
        if index % 7 == 0:
            await asyncio.sleep(0)
        assert history.get(index * 50) or await history.lookup(index * 50)
    await history.flushed(400)
    assert history.stats()["rows_written"] == 399 * 50
    assert len(await history.list(limit=10**6)) == 399 * 50
