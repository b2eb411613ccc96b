"""History from one node to another: whole, once, and never what was damaged on the way."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from history_rig import as_dict, ended, job, lot, make_release_3

from cluster.clock import ManualClock
from cluster.history import FinishedJob, History, HistoryError, PastAttempt, PastEvent, chunk
from cluster.history import exchange as exchanging
from cluster.history.chunk import Chunk
from cluster.history.exchange import BusyError, LackingError
from cluster.history.gaps import Gap, Place
from cluster.history.inserts import BAND_BITS
from cluster.history.parcel import ROWS_MAX, ParcelError, Seal

DAY_MS = 86_400_000
SEAL = Seal("c1", "a secret of this cluster")
ENTRIES = 300


def rows_of(seed: int, entries: int = ENTRIES) -> dict[int, list[FinishedJob]]:
    """What each log entry finished: jobs old and new, alike and not, some of them twice."""
    rng = random.Random(seed)
    waiting = list(range(1, entries * 40))
    found: dict[int, list[FinishedJob]] = {}
    twice: list[int] = []
    for index in range(2, entries + 2):
        ids = [waiting.pop(rng.randrange(min(500, len(waiting)))) for _ in range(rng.randrange(30))]
        if twice and rng.random() < 0.1:
            ids.append(twice.pop())
        found[index] = [some_job(rng, job_id, index) for job_id in dict.fromkeys(ids)]
        twice += [row.job_id for row in found[index] if row.status == "failed"]
    return found


def some_job(rng: random.Random, job_id: int, index: int) -> FinishedJob:
    fields: dict[str, object] = {"finished_ms": 1_000 + index, "payload": b"x" * rng.randrange(90)}
    if rng.random() < 0.2:
        fields |= {"tags": ("a", f"t{rng.randrange(3)}"), "queue": "mail", "output": b"1"}
    if rng.random() < 0.2:
        fields |= {
            "schedule_id": f"s{rng.randrange(3)}",
            "nominal_ms": index,
            "attempts": (PastAttempt(1, 2, 3, 4, "failed", "E", "no"),),
        }
    status = rng.choice(("completed", "completed", "failed", "cancelled"))
    return job(job_id, index, status, **fields)


def events_of(index: int) -> list[PastEvent]:
    return [PastEvent(index << 20, "s1", 1_000 + index, "skipped")] if index % 7 == 0 else []


class Nodes:
    """Histories in a folder, by name; closed at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.clock = ManualClock(1_000_000)
        self.open: dict[str, History] = {}

    def history(self, name: str, retention_ms: int = 0) -> History:
        opened = History.open(self.path(name), retention_ms, self.clock)
        self.open[name] = opened
        return opened

    def path(self, name: str) -> Path:
        return self._folder / name / "history.sqlite"

    async def reopened(self, name: str) -> History:
        await self.open[name].close()
        return self.history(name)

    async def full(self, name: str, entries: dict[int, list[FinishedJob]]) -> History:
        """One that the whole log came by."""
        return await fed(self.history(name), entries)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    made = Nodes(tmp_path)
    yield made
    for history in made.open.values():
        await history.close()


async def fed(history: History, entries: dict[int, list[FinishedJob]]) -> History:
    for index, rows in entries.items():
        if rows:
            history.add(index, lot(rows))
        if events := events_of(index):
            history.add_schedule_events(index, events)
        if index % 50 == 0:
            await history.flushed(index)
    await history.flushed(max(entries))
    return history


async def skipped_to(history: History, index: int, until_ms: int = 10_000) -> None:
    """As if a snapshot of that entry had been installed."""
    history.skip_to(index, until_ms)
    await history.flushed(index)


async def fetch(source: History, target: History, pieces: int = 10_000, since_ms: int = 0) -> int:
    """Closes what gaps there are, up to so many pieces; returns how many it took."""
    for count in range(pieces):
        if not target.lacks:
            return count
        gap = target.lacks[0]
        sealed = await source.exchange.offer(SEAL, gap.start, gap.last_index, since_ms)
        await target.exchange.take(SEAL, gap.start, sealed)
    return pieces


def nothing_is_twice(path: Path) -> bool:
    """Readers would not tell: of rows of one job they show the last."""
    db = sqlite3.connect(path)
    blobs = db.execute("SELECT form, rows FROM chunk").fetchall()
    db.close()
    chunks = [Chunk.decode(*blob) for blob in blobs]
    places = [place for each in chunks for place in zip(each.ids, each.indexes, strict=True)]
    return len(places) == len(set(places))


async def content(history: History) -> list[object]:
    """All that can be asked of a history."""
    rows = await history.list(limit=100_000)
    runs = [await history.runs(f"s{n}", limit=100_000) for n in range(3)]
    told = await history.schedule_events("s1", limit=100_000)
    return [list(map(as_dict, rows)), [[r.job_id for r in each] for each in runs], list(told)]


@pytest.mark.parametrize("seed", range(3))
async def test_a_fresh_history_becomes_equal_to_its_peers(nodes: Nodes, seed: int) -> None:
    entries = rows_of(seed)
    source = await nodes.full("source", entries)
    target = nodes.history("target")
    await skipped_to(target, ENTRIES + 1)
    assert not target.is_complete
    assert target.lacks == [Gap(1, 0, ENTRIES + 1, 10_000)]
    assert await fetch(source, target) >= 3
    assert target.is_complete
    assert await content(target) == await content(source)
    assert target.stats()["rows_fetched"] == source.stats()["rows_given"]
    third = nodes.history("third")  # what was fetched is as good as what was written
    await skipped_to(third, ENTRIES + 1)
    await fetch(target, third)
    assert await content(third) == await content(source)


async def test_pieces_are_small_and_an_entry_may_take_several(nodes: Nodes) -> None:
    rows = [job(n, 5) for n in range(1, 3 * ROWS_MAX)]
    large = [job(n, 6, payload=bytes(300_000)) for n in range(10_000, 10_010)]
    source = await nodes.full("source", {5: rows, 6: large})
    target = nodes.history("target")
    await skipped_to(target, 6)
    ends = []
    while target.lacks:
        gap = target.lacks[0]
        sealed = await source.exchange.offer(SEAL, gap.start, gap.last_index, 0)
        taken = await target.exchange.take(SEAL, gap.start, sealed)
        assert taken.rows <= ROWS_MAX
        ends.append(taken.end)
    assert ends[:2] == [Place(5, ROWS_MAX), Place(5, 2 * ROWS_MAX)]
    assert len(ends) >= 6
    assert await content(target) == await content(source)


@pytest.mark.parametrize("where", [0, 31, 32, 40, -1])
async def test_a_damaged_piece_is_refused_and_nothing_of_it_is_written(
    nodes: Nodes, where: int
) -> None:
    source = await nodes.full("source", rows_of(1))
    target = nodes.history("target")
    await skipped_to(target, ENTRIES + 1)
    start = target.lacks[0].start
    sealed = bytearray(await source.exchange.offer(SEAL, start, ENTRIES + 1, 0))
    sealed[where] ^= 0x10
    with pytest.raises(ParcelError, match="arrived damaged"):
        await target.exchange.take(SEAL, start, bytes(sealed))
    assert await target.list() == []
    assert target.lacks[0].start == start
    assert target.stats()["rows_fetched"] == 0


async def test_a_piece_of_another_cluster_secret_or_place_is_refused(nodes: Nodes) -> None:
    source = await nodes.full("source", rows_of(1))
    target = nodes.history("target")
    await skipped_to(target, ENTRIES + 1)
    for seal in (Seal("c2", "a secret of this cluster"), Seal("c1", None), Seal("c1", "other")):
        foreign = await source.exchange.offer(seal, Place(1), 50, 0)
        with pytest.raises(ParcelError, match="another cluster's"):
            await target.exchange.take(SEAL, Place(1), foreign)
    elsewhere = await source.exchange.offer(SEAL, Place(60), 90, 0)
    with pytest.raises(ParcelError, match="another place"):
        await target.exchange.take(SEAL, Place(1), elsewhere)
    assert await target.list() == []


async def test_rot_on_the_giving_disk_is_noticed_there(nodes: Nodes) -> None:
    await nodes.full("source", rows_of(1))
    await nodes.open["source"].close()
    db = sqlite3.connect(nodes.path("source"))
    (blob,) = db.execute("SELECT rows FROM chunk WHERE id = 1").fetchone()
    rotten = blob[:-1] + bytes([blob[-1] ^ 1])
    db.execute("UPDATE chunk SET rows = ? WHERE id = 1", (rotten,))
    db.commit()
    db.close()
    source = nodes.history("source")
    sealed = await source.exchange.offer(SEAL, Place(1), ENTRIES + 1, 0)
    (gap,) = source.lacks
    assert SEAL.open(sealed).end == Place(gap.first_index), "what is before it, and no more"


async def test_a_restart_in_the_middle_goes_on_with_another_peer_and_doubles_nothing(
    nodes: Nodes,
) -> None:
    entries = rows_of(2)
    source = await nodes.full("source", entries)
    other = nodes.history("other")  # the same rows in other chunks
    for index, rows in entries.items():
        other.add(index, lot(rows))
        other.add_schedule_events(index, events_of(index))
    await other.flushed(ENTRIES + 1)
    target = nodes.history("target")
    await skipped_to(target, ENTRIES + 1)
    assert await fetch(source, target, pieces=1) == 1
    begun = target.lacks
    assert begun[0].start > Place(1)
    target = await nodes.reopened("target")
    assert target.lacks == begun
    target.skip_to(ENTRIES + 1, 10_000)  # the snapshot is restored again
    assert target.lacks == begun
    await fetch(other, target)
    assert await content(target) == await content(source)
    assert nothing_is_twice(nodes.path("target"))


async def test_a_write_that_fails_half_way_leaves_gap_and_rows_as_they_were(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await nodes.full("source", rows_of(1))
    target = nodes.history("target")
    await skipped_to(target, ENTRIES + 1)
    before = target.lacks[0].start
    sealed = await source.exchange.offer(SEAL, before, ENTRIES + 1, 0)

    def fail(*ignored: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(exchanging.occasions, "write", fail)
        with pytest.raises(HistoryError, match="disk is full"):
            await target.exchange.take(SEAL, before, sealed)
    assert target.lacks[0].start == before
    assert await target.list() == []
    await fetch(source, target)
    assert await content(target) == await content(source)


async def test_live_writes_go_on_and_rows_that_are_here_already_are_not_doubled(
    nodes: Nodes,
) -> None:
    entries = rows_of(3, entries=400)
    source = await nodes.full("source", entries)
    target = nodes.history("target")
    early = {index: rows for index, rows in entries.items() if index <= 60}
    await fed(target, early)
    await skipped_to(target, 301)
    # A gap that says more than is true, as after a disk that was full: rows 61 on are really new.
    db = sqlite3.connect(nodes.path("target"))
    db.execute("UPDATE gap SET first_index = 20")
    db.commit()
    db.close()
    target = await nodes.reopened("target")
    late = {index: rows for index, rows in entries.items() if index > 301}
    for index, rows in late.items():
        target.add(index, lot(rows))
        target.add_schedule_events(index, events_of(index))
        if index % 20 == 0:
            await fetch(source, target, pieces=1)
    await fetch(source, target)
    await target.flushed(401)
    assert await content(target) == await content(source)
    assert nothing_is_twice(nodes.path("target"))


async def test_what_is_too_old_to_be_kept_is_not_fetched(nodes: Nodes) -> None:
    entries = rows_of(4)
    source = await nodes.full("source", entries)
    target = nodes.history("target", retention_ms=DAY_MS)
    nodes.clock.advance(DAY_MS + 1_200 - 1_000_000)  # entries up to 199 are a day old
    await skipped_to(target, ENTRIES + 1, until_ms=1_000 + ENTRIES + 1)
    assert target.kept_since_ms() == 1_200
    await fetch(source, target, since_ms=target.kept_since_ms())
    kept = [row for rows in entries.values() for row in rows if row.finished_ms >= 1_200]
    assert 0 < target.stats()["rows_fetched"] <= len(kept)
    assert {row.job_id for row in await target.list(limit=9_999)} == {row.job_id for row in kept}


async def test_a_gap_that_is_too_old_is_forgotten(nodes: Nodes) -> None:
    target = nodes.history("target", retention_ms=DAY_MS)
    await skipped_to(target, 50, until_ms=2_000)
    nodes.clock.advance(DAY_MS)
    await target.exchange.forget_expired(target.kept_since_ms())
    assert target.is_complete
    target = await nodes.reopened("target")
    assert target.is_complete


async def test_what_a_peer_lacks_itself_it_does_not_give(nodes: Nodes) -> None:
    entries = rows_of(5)
    peer = nodes.history("peer")
    await fed(peer, {index: rows for index, rows in entries.items() if index <= 100})
    await skipped_to(peer, 200)
    await fed(peer, {index: rows for index, rows in entries.items() if index > 200})
    with pytest.raises(LackingError, match="lacks log entry 150"):
        await peer.exchange.offer(SEAL, Place(150), 300, 0)
    with pytest.raises(LackingError):
        await peer.exchange.offer(SEAL, Place(ENTRIES + 2), 900, 0)
    sealed = await peer.exchange.offer(SEAL, Place(90), 300, 0)
    assert SEAL.open(sealed).end <= Place(101)  # and not a step beyond


async def test_what_a_peer_has_dropped_counts_as_dropped_here(nodes: Nodes) -> None:
    source = nodes.history("source", retention_ms=500)
    await fed(source, rows_of(6))
    assert source.stats()["pruned_chunks"], "nothing was dropped: the test is void"
    target = nodes.history("target")
    await skipped_to(target, ENTRIES + 1)
    await fetch(source, target)
    theirs, ours = await source.exchange.standing(), await target.exchange.standing()
    assert ours.pruned_ms == theirs.pruned_ms > 0


async def test_a_file_of_an_earlier_release_is_looked_through_and_given(nodes: Nodes) -> None:
    entries = rows_of(7)
    before = await content(await nodes.full("source", entries))
    await nodes.open["source"].close()
    make_release_3(nodes.path("source"))
    source = nodes.history("source")
    await source.flushed(ENTRIES + 1)
    assert source.is_complete
    target = nodes.history("target")
    await skipped_to(target, ENTRIES + 1)
    with pytest.raises(BusyError, match="looked through"):
        await source.exchange.offer(SEAL, Place(1), ENTRIES + 1, 0)
    await fetch(source, target)
    assert await content(target) == before


async def test_a_history_that_lost_its_file_lacks_all_that_the_log_does_not_replay(
    nodes: Nodes,
) -> None:
    entries = rows_of(8)
    source = await nodes.full("source", entries)
    await nodes.full("target", entries)
    await nodes.open["target"].close()
    nodes.path("target").write_bytes(b"rust" * 5_000)
    target = nodes.history("target")
    target.skip_to(200, 9_999)  # the node's own snapshot
    await fed(target, {index: rows for index, rows in entries.items() if index > 200})
    assert target.lacks == [Gap(1, 0, 200, 9_999)]
    await fetch(source, target)
    assert await content(target) == await content(source)
    assert len(list(nodes.path("target").parent.glob("history.sqlite.damaged-*"))) == 1


async def test_what_rotted_while_the_node_runs_comes_back_from_a_peer(nodes: Nodes) -> None:
    entries = rows_of(10)
    source, target = await nodes.full("source", entries), await nodes.full("target", entries)
    before = await content(source)
    db = sqlite3.connect(nodes.path("target"))
    (count,) = db.execute("SELECT count(*) FROM chunk").fetchone()
    db.execute("UPDATE chunk SET rows = substr(rows, 2) WHERE id % 3 = 0")
    db.commit()
    db.close()
    target = await nodes.reopened("target")  # nothing of it is in memory
    await target.flushed(ENTRIES + 1)
    assert len(await target.list(limit=100_000)) < len(await source.list(limit=100_000))
    assert target.stats()["chunks_damaged"] == count // 3
    assert not target.is_complete
    await fetch(source, target)
    assert target.is_complete
    assert await content(target) == before
    assert nothing_is_twice(nodes.path("target"))


async def test_a_piece_with_rot_in_it_is_not_given(nodes: Nodes) -> None:
    source = await nodes.full("source", rows_of(11))
    db = sqlite3.connect(nodes.path("source"))
    first, last = db.execute(
        "SELECT first_index, last_index FROM chunk ORDER BY id LIMIT 1"
    ).fetchone()
    db.execute("UPDATE chunk SET rows = substr(rows, 2) WHERE id = 1")
    db.commit()
    db.close()
    with pytest.raises(LackingError, match="lacks log entry"):
        await source.exchange.offer(SEAL, Place(first), ENTRIES + 1, 0)
    assert [gap.entries for gap in source.lacks] == [(first, last)]
    assert await source.exchange.offer(SEAL, Place(last + 1), ENTRIES + 1, 0)


async def test_a_file_that_an_earlier_release_went_on_with_is_believed_and_goes_on(
    nodes: Nodes,
) -> None:
    entries = rows_of(9)
    source = await nodes.full("source", {n: rows for n, rows in entries.items() if n <= 100})
    await source.close()
    as_earlier_release_writes(nodes.path("source"), [job(900_000, 150)])
    source = nodes.history("source")
    source.skip_to(160, 9)  # that release's last snapshot
    assert source.is_complete
    source.add(170, lot([job(900_001, 170)]))
    await source.flushed(170)
    target = nodes.history("target")
    await skipped_to(target, 170)
    with pytest.raises(BusyError):
        await source.exchange.offer(SEAL, Place(1), 170, 0)
    await fetch(source, target)
    assert await content(target) == await content(source)
    assert (await target.lookup(900_000), await target.lookup(900_001)) == (
        job(900_000, 150),
        job(900_001, 170),
    )


def as_earlier_release_writes(path: Path, rows: list[FinishedJob]) -> None:
    """A row a chunk, with the columns that it knows of."""
    db = sqlite3.connect(path)
    for row in rows:
        values = ended([row]).values(0, 1)
        form, blob = chunk.compressed(chunk.encode(values, 1))
        db.execute(
            "INSERT INTO chunk (band, first_id, last_id, finished_ms, statuses, labels, rows, form)"
            " VALUES (?, ?, ?, ?, 1, NULL, ?, ?)",
            (row.job_id >> BAND_BITS, row.job_id, row.job_id, row.finished_ms, blob, form),
        )
        db.execute("UPDATE progress SET index_last = ?", (row.index,))
    db.commit()
    db.close()


async def test_a_chunk_never_gets_the_number_of_one_that_was_dropped(nodes: Nodes) -> None:
    history = nodes.history("source", retention_ms=DAY_MS)
    history.add(1, lot([job(1, 1, finished_ms=nodes.clock.now_ms())]))
    await history.flushed(1)
    assert await history.lookup(1)  # and the reader remembers the chunk by its number
    nodes.clock.advance(2 * DAY_MS)
    for index in (2, 3):
        await history.flushed(index)  # pruned behind the first, seen behind the second
    assert history.stats()["pruned_chunks"] == 1
    later = job(2, 4, finished_ms=nodes.clock.now_ms())
    history.add(4, lot([later]))
    await history.flushed(4)
    assert await history.lookup(2) == later
    assert await history.lookup(1) is None
