"""What the history knows of schedules: runs by occurrence, and events."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from history_rig import ended, job, lot, write_as_release_2

from cluster.clock import ManualClock
from cluster.history import FinishedJob, History, PastEvent, archive
from cluster.history.store import Store

MINUTE_MS = 60_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


@pytest.fixture
async def history(path: Path) -> AsyncIterator[History]:
    opened = History.open(path, retention_ms=0)
    yield opened
    await opened.close()


def run(job_id: int, schedule_id: str = "a", minute: int = 0, **more: Any) -> FinishedJob:
    fields = {"index": job_id, "name": "t", **more}
    return job(job_id, schedule_id=schedule_id, nominal_ms=minute * MINUTE_MS, **fields)


def event(seq: int, schedule_id: str = "a", at_ms: int = 5, kind: str = "skipped") -> PastEvent:
    return PastEvent(seq, schedule_id, at_ms, kind, MINUTE_MS, 2 * MINUTE_MS, 2, "overlap")


async def ids(history: History, *asked: object) -> list[int]:
    return [row.job_id for row in await history.runs(*asked)]  # type: ignore[arg-type]


async def test_runs_are_found_by_schedule_and_occurrence(history: History) -> None:
    # Two runs of minute 3, as after a backfill; jobs of no schedule in between.
    rows = [run(n, "a", n) for n in (1, 2, 3)] + [run(4, "", 3), run(5, "b", 3), run(6, "a", 3)]
    for is_on_disk in (False, True):
        if is_on_disk:
            await history.flushed(6)
        else:
            history.add(6, lot(rows))
        assert await ids(history, "a") == [6, 3, 2, 1]
        assert await ids(history, "a", 3 * MINUTE_MS) == [6, 3]
        assert await ids(history, "a", None, 6, 2) == [3, 2]
        assert await ids(history, "a", 3 * MINUTE_MS, 6) == [3]
        assert await ids(history, "b") == [5]
        assert await ids(history, "none") == await ids(history, "a", 9 * MINUTE_MS) == []
        assert await ids(history, "") == []


async def test_a_run_that_ended_twice_is_told_as_it_ended_last(history: History) -> None:
    history.add(1, lot([run(1, "a", 1, status="failed")]))
    await history.flushed(1)
    history.add(2, lot([run(1, "a", 1, status="completed", index=2)]))
    assert [row.status for row in await history.runs("a")] == ["completed"]
    await history.flushed(2)
    assert [row.status for row in await history.runs("a")] == ["completed"]


async def test_events_are_told_newest_first_and_a_replay_adds_none(path: Path) -> None:
    history = History.open(path, retention_ms=0)
    told = [event(n, "a" if n % 2 else "b") for n in range(1, 8)]
    history.add_schedule_events(3, told[:4])
    await history.flushed(3)
    history.add_schedule_events(4, told[4:])
    assert [each.seq for each in await history.schedule_events("a")] == [7, 5, 3, 1]
    assert [each.seq for each in await history.schedule_events("a", 5, 1)] == [3]
    await history.close()
    again = History.open(path, retention_ms=0)
    again.add_schedule_events(3, told[:4])
    again.add_schedule_events(4, told[4:])
    again.add(4, lot([run(1)]))
    assert [each.seq for each in await again.schedule_events("a")] == [7, 5, 3, 1]
    await again.flushed(4)
    assert list(await again.schedule_events("b")) == [told[5], told[3], told[1]]
    assert again.stats()["index_written"] == 4
    await again.close()


def test_old_runs_and_events_are_pruned_with_their_chunks(path: Path) -> None:
    store = Store(path)
    store.write(ended([run(1, finished_ms=10)]), 1, durable=False, events=[event(1, at_ms=10)])
    store.write(ended([run(2, finished_ms=90)]), 2, durable=False, events=[event(2, at_ms=90)])
    assert store.prune(50, 16) == 1
    assert [row.job_id for row in store.runs("a", None, 99, 9)] == [2]
    assert [each.seq for each in store.events("a", 99, 9)] == [2]
    assert store.prune(50, 16) == 0
    store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM run").fetchone() == (1,)
    db.close()


async def test_events_alone_are_pruned_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PRUNE_SECONDS", 0.01)
    monkeypatch.setattr(archive, "GATHER_SECONDS", 0.01)
    history = History.open(path, retention_ms=100, clock=ManualClock(1_000))
    history.add_schedule_events(1, [event(1, at_ms=100), event(2, at_ms=950)])
    history.add_schedule_events(2, [event(3, at_ms=960)])
    await history.flushed(2)
    await history.close()
    store = Store(path)
    store.prune(900, 16)
    assert [each.seq for each in store.events("a", 99, 9)] == [3, 2]
    store.close()


def test_a_file_of_the_first_release_is_brought_up(path: Path) -> None:
    write_as_release_2(path, [run(1, "")])
    with sqlite3.connect(path) as db:
        db.executescript("DROP TABLE run; DROP TABLE schedule_event; PRAGMA user_version = 1")
    db.close()
    again = Store(path)
    again.write(ended([run(2, "a")]), 2, durable=True, events=[event(1)])
    assert [row.job_id for row in again.runs("a", None, 9, 9)] == [2]
    assert again.find(1) == run(1, "")
    again.close()
