"""The history's file: chunks, damage, a full disk."""

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from history_rig import ended, job, lot

from cluster.history import History, HistoryError
from cluster.history.gaps import Gap
from cluster.history.inserts import BAND_BITS, CHUNK_BYTES_MAX
from cluster.history.record import Query
from cluster.history.store import Store

BAND = 1 << BAND_BITS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node" / "history.sqlite"


async def test_large_rows_are_split_into_several_chunks(path: Path) -> None:
    history = History.open(path, 0)
    rows = [job(n, payload=bytes([n]) * (CHUNK_BYTES_MAX // 8)) for n in range(1, 40)]
    history.add(1, lot(rows))
    await history.flushed(1)
    with sqlite3.connect(path) as db:
        (chunks,) = db.execute("SELECT count(*) FROM chunk").fetchone()
    db.close()
    assert chunks >= 5
    assert await history.lookup(39) == rows[38]
    assert [row.job_id for row in await history.list(limit=100)] == list(range(39, 0, -1))
    await history.close()


def test_chunks_are_bounded_and_keep_to_their_band(path: Path) -> None:
    store = Store(path)
    rows = [job(n) for n in range(BAND - 10, 2 * BAND + 20)]
    store.write(ended(rows), 1, durable=False)
    with sqlite3.connect(path) as db:
        chunks = db.execute("SELECT band, first_id, last_id FROM chunk ORDER BY id").fetchall()
    db.close()
    assert chunks == [
        (0, BAND - 10, BAND - 1),
        (1, BAND, 2 * BAND - 1),
        (2, 2 * BAND, 2 * BAND + 19),
    ]
    assert store.page(Query(), BAND, 3)[0] == [job(BAND - 1), job(BAND - 2), job(BAND - 3)]
    store.close()


def of_something_else(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t (x)")
    db.commit()
    db.close()


def rot(path: Path, change: str) -> None:
    """What a disk does, so that only a checksum tells."""
    db = sqlite3.connect(path)
    db.execute(f"UPDATE chunk SET {change}")
    db.commit()
    db.close()


def of_the_future(path: Path) -> None:
    Store(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (of_something_else, "something else: move it away"),
        (of_the_future, "newer release .*upgrade"),
        (Path.mkdir, "cannot be opened .*check the folder"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_fix(
    path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    path.parent.mkdir()
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(HistoryError, match=message) as caught:
        History.open(path, 0)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not path.is_file() or path.read_bytes() == before


async def test_damage_that_stays_is_an_error_and_not_an_absent_job(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a chunk of an earlier release nobody can say what would be lacking without it."""
    history = History.open(path, 0)
    history.add(1, lot([job(1)]))
    await history.flushed(1)
    rot(path, "rows = x'00', first_index = NULL, last_index = NULL")
    for _ in range(3):
        with pytest.raises(HistoryError, match=r"history\.sqlite cannot be decoded .*checksum"):
            await history.lookup(1)
    assert history.is_complete
    assert history.stats()["reads_damaged"] == 3
    assert caplog.text.count("move the file away") == 1
    await history.close()


async def test_a_damaged_chunk_is_set_aside_and_what_it_held_is_lacking(path: Path) -> None:
    history, told = History.open(path, 0), list[int]()
    history.on_gap(lambda: told.append(1))
    for index, job_id in ((5, 1), (6, 2 * BAND), (7, 3 * BAND)):
        history.add(index, lot([job(job_id, index, finished_ms=index)]))
        await history.flushed(index)
    rot(path, "rows = x'00' WHERE first_index = 6")
    assert [row.job_id for row in await history.list()] == [3 * BAND, 1]
    assert await history.lookup(2 * BAND) is None
    assert list(history.lacks) == [Gap(6, 0, 6, 6)]
    assert (history.stats()["chunks_damaged"], told) == (1, [1])
    assert [each.read_bytes() for each in path.parent.glob("*.damaged-chunk-*")] == [b"\0"]
    await history.close()
    history = History.open(path, 0)
    assert list(history.lacks) == [Gap(6, 0, 6, 6)]
    await history.close()


async def test_a_replay_goes_on_beside_a_damaged_chunk(path: Path) -> None:
    history = History.open(path, 0)
    history.add(5, lot([job(1, 5)]))
    await history.flushed(5)
    await history.close()
    rot(path, "rows = x'00'")
    history = History.open(path, 0)
    history.add(5, lot([job(1, 5)]))
    await history.flushed(5)
    assert await history.lookup(1) == job(1, 5)
    assert list(history.lacks) == [Gap(5, 0, 5, 0)]
    await history.close()


def test_a_write_that_meets_a_full_disk_leaves_nothing_half_done(path: Path) -> None:
    store = Store(path)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    noise = random.Random(1).randbytes(50_000)
    with pytest.raises(HistoryError, match=r"disk is full.*free space on its disk"):
        store.write(ended([job(1), job(BAND * 2, payload=noise)]), 7, durable=True)
    assert store.find(1) is None
    assert store.index_last() == 0
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.write(ended([job(1), job(BAND * 2, payload=noise)]), 7, durable=True)
    assert store.find(BAND * 2) == job(BAND * 2, payload=noise)
    assert store.index_last() == 7
    store.close()
