"""What the simulation believes of a disk: the synced bytes, whatever the node says."""

from __future__ import annotations

from pathlib import Path

from chaos.sim.disk import MemoryStorage
from chaos.sim.raft.platter import Platter, needed_bytes
from cluster.consensus import records
from cluster.consensus.recovery import Recovered, read_journal
from cluster.consensus.segments import Batch, SegmentFiles
from cluster.consensus.storage import make_folders, sync_path

FOLDER = Path("/n1/journal")
CLUSTER = b"c" * 16
OPENING = [b"".join(records.hard_state(0, None)), *records.record(records.BASE, 1, 0)]


def journal(storage: MemoryStorage, *, fsync: bool = True) -> SegmentFiles:
    make_folders(storage, FOLDER)
    sync_path(storage, FOLDER)
    files = SegmentFiles(storage, FOLDER, CLUSTER, Recovered(), 10_000, fsync=fsync)
    files.begin(OPENING)
    return files


def batch(*parts: list[bytes]) -> Batch:
    return Batch(1, 1, [piece for part in parts for piece in part], OPENING)


def entry(index: int, term: int) -> list[bytes]:
    return records.record(records.ENTRY, index, term, b"\x00work")


def test_a_platter_begins_with_what_is_durable_only() -> None:
    storage = MemoryStorage()
    files = journal(storage)
    files.append(batch(records.hard_state(3, "n2"), entry(2, 3)))
    files.sync()
    files.append(batch(entry(3, 3)))
    files.write()
    platter = Platter(storage, FOLDER, CLUSTER)
    assert (platter.last, platter.term_at(2), platter.term_at(3)) == (2, 3, None)
    assert (platter.term, platter.vote, platter.damage) == (3, "n2", "")


def test_a_platter_follows_cuts_and_resets() -> None:
    storage = MemoryStorage()
    journal(storage)
    platter = Platter(storage, FOLDER, CLUSTER)
    platter.synced([*entry(2, 1), *entry(3, 1), *records.hard_state(2, None)])
    platter.synced([*records.record(records.TRUNCATE, 3, 1), *entry(3, 2)])
    assert (platter.terms, platter.term) == ([0, 1, 2], 2)
    platter.synced([*records.record(records.RESET, 9, 2), *entry(10, 2)])
    assert (platter.first, platter.last, platter.term_at(9)) == (9, 10, 2)


def test_a_sync_that_saved_nothing_is_not_believed() -> None:
    storage = MemoryStorage()
    files = journal(storage, fsync=False)
    platter = Platter(storage, FOLDER, CLUSTER)
    files.append(batch(entry(2, 1)))
    files.sync()
    platter.synced(entry(2, 1))
    assert platter.last == 1


def test_damage_is_done_only_where_it_must_be_noticed() -> None:
    storage = MemoryStorage()
    files = journal(storage)
    for index in (2, 3):
        files.append(batch(records.hard_state(1, None), entry(index, 1)))
        files.sync()
    path = FOLDER / "0000000000000001.seg"
    for position in needed_bytes(storage, path):
        repair = storage.rot(path, position, 0)
        assert "corrupt" in Platter(storage, FOLDER, CLUSTER).damage, position
        repair()
    assert read_journal(storage, FOLDER, CLUSTER).last_index == 3
