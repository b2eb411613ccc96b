"""Backups by themselves: whose shelf it is, and that nothing waits for anything slow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import fsspec
import pytest

from chaos.sim.clock import SimClock
from cluster.actors import keeper as keeping
from cluster.actors.keeper import Habits, Keeper
from cluster.backup import open_bundle
from cluster.backup.life import MARK, Life, decode_life
from cluster.backup.logs import KeptLog, kept_files, read_entries
from cluster.backup.shelf import Shelf
from cluster.backup.store import Store
from cluster.backup.take import Source
from cluster.consensus import ReadError, ReadFailure
from cluster.consensus.members import first_members
from cluster.consensus.snapfile import SnapshotFile, write_content
from cluster.machine import snapshot
from cluster.machine.state import State

CLUSTER = b"c" * 16
STORE = "memory://bucket"


class FakeConsensus:
    cluster_id = CLUSTER.hex()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.applied = 0
        self.newest_snapshot: SnapshotFile | None = None

    async def snapshot_now(self) -> int:
        path = self.folder / "newest.snap"
        with path.open("wb") as file:
            write_content(
                file, cluster=CLUSTER, index=self.applied, term=1,
                members=first_members(["a"]), chunks=snapshot.dump(State()),
            )  # fmt: skip
        self.newest_snapshot = SnapshotFile(path, self.applied, 1)
        return self.applied


class FakeRaft:
    """A node that has applied `applied` of the `committed` entries that its cluster has."""

    def __init__(self, folder: Path, applied: int, folders: str) -> None:
        self.consensus = FakeConsensus(folder)
        self.state = State()
        self.is_leader = False
        self.has_majority = True
        self.epoch, self.known = 1, set(folders)
        self.applied_index = self.consensus.applied = self.committed = applied
        self.reads = 0
        self._listener: Callable[[int, int, bytes], None] = lambda *_: None

    def on_entry(self, listener: Callable[[int, int, bytes], None]) -> None:
        self._listener = listener

    def folders(self) -> tuple[int, set[str]]:
        return self.epoch, self.known

    async def read_index(self, timeout_ms: int) -> int:
        self.reads += 1
        if not self.has_majority:
            raise ReadError(ReadFailure.NO_QUORUM)
        self.apply(self.committed - self.applied_index)
        return self.applied_index

    def apply(self, count: int) -> None:
        for _ in range(count):
            self.applied_index = self.consensus.applied = self.applied_index + 1
            self._listener(self.applied_index, 7, b"entry")
        self.committed = max(self.committed, self.applied_index)


class Rig:
    """A keeper that makes one turn when the test says so."""

    def __init__(self, root: Path, applied: int, folders: str, store: str = "", keep: int = 7):
        root.mkdir(exist_ok=True)
        self.raft = FakeRaft(root, applied, folders)
        self.shelf = Shelf(root / "shelf", CLUSTER.hex())
        source = Source(cast(Any, self.raft.consensus), cast(Any, None), "a", "1", root)
        habits = Habits(root / "shelf", 3_600.0, keep, False, True, store, 3_600.0)
        clock = SimClock(asyncio.get_running_loop())
        self.keeper = Keeper(cast(Any, self.raft), source, habits, clock)

    async def turn(self) -> None:
        await self.keeper.turn()

    async def sent(self) -> None:
        """A turn that sends what there is, and the end of that."""
        self.keeper._send_at = 0.0
        await self.turn()
        assert self.keeper._sending is not None
        await self.keeper._sending

    def kept(self) -> list[int]:
        if not self.shelf.folder.is_dir():
            return []
        return [i for file in kept_files(self.shelf.folder) for i, _, _ in read_entries(file.path)]

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.shelf.folder.iterdir()}

    def mark(self) -> Life:
        return decode_life((self.shelf.folder / MARK).read_bytes(), "here")

    @property
    def refused(self) -> float:
        return self.keeper.gauges()["keeper_shelf_refused"]


@pytest.fixture(autouse=True)
def looks_each_turn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(keeping, "LOOK_S", 0.0)
    yield
    fsspec.filesystem("memory").store.clear()


async def lived(root: Path, entries: int = 50, folders: str = "abc", store: str = "") -> Rig:
    """A cluster that kept its log and wrote a whole backup, and is gone."""
    old = Rig(root, 1, folders, store)
    old.raft.is_leader = True
    await old.turn()
    old.raft.apply(entries)
    await old.turn()
    if store:
        await old.sent()
    await old.keeper.on_stop()
    return old


def without_mark(old: Rig) -> None:
    """As an earlier release left it."""
    (old.shelf.folder / MARK).unlink()


async def test_the_first_life_marks_the_shelf_and_keeps_all(tmp_path: Path) -> None:
    rig = await lived(tmp_path)
    assert rig.mark() == Life(1, ("a", "b", "c"))
    assert rig.kept() == list(range(2, 52))
    assert [full.index for full in rig.shelf.fulls()] == [1]
    assert rig.raft.reads == 0, "nothing was in doubt"


@pytest.mark.parametrize("applied", [5, 5_000])
async def test_a_cluster_that_lost_its_data_leaves_the_old_backups_alone(
    tmp_path: Path, applied: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = (await lived(tmp_path)).files()
    new = Rig(tmp_path, applied, "xyz", keep=1)
    new.raft.is_leader = True
    for _ in range(3):
        new.raft.apply(10)
        await new.turn()
    await new.keeper.on_stop()
    assert new.files() == before
    assert new.refused == 1
    (told,) = [record.message for record in caplog.records if record.name == "quorate.keeper"]
    assert "other data folders" in told
    assert str(new.shelf.folder) in told


async def test_a_shelf_without_a_mark_is_refused_by_how_far_it_reaches(tmp_path: Path) -> None:
    old = await lived(tmp_path)
    without_mark(old)
    before = old.files()
    new = Rig(tmp_path, 20, "xyz")
    await new.turn()
    assert new.refused == 1
    new.raft.apply(1_000)
    await new.turn()
    assert new.refused == 1, "to outgrow it does not make it one's own"
    assert new.files() == before


async def test_a_shelf_of_an_earlier_release_is_gone_on_with(tmp_path: Path) -> None:
    without_mark(await lived(tmp_path))
    new = Rig(tmp_path, 51, "abc")
    await new.turn()
    new.raft.apply(1)
    await new.turn()
    assert new.kept() == list(range(2, 53))
    assert new.mark().folders == ("a", "b", "c")


async def test_data_that_went_back_in_time_is_not_kept_between_what_came_after(
    tmp_path: Path,
) -> None:
    """The same folders, but older: all disks were put back to an image of theirs."""
    old = await lived(tmp_path)
    old.shelf.path_for(51, 1_000).write_bytes(b"")
    new = Rig(tmp_path, 30, "abc")
    await new.turn()
    assert new.refused == 1


async def test_who_is_behind_learns_what_there_is_before_it_judges(tmp_path: Path) -> None:
    old = await lived(tmp_path)
    old.shelf.path_for(51, 1_000).write_bytes(b"")
    late = Rig(tmp_path, 30, "a")
    late.raft.committed = 51
    late.raft.has_majority = False
    await late.turn()
    assert (late.refused, late.raft.reads) == (0, 1)
    assert late.kept() == list(range(2, 52)), "what is not decided is not written to"
    late.raft.has_majority, late.raft.known = True, set("abc")
    await late.turn()
    assert late.refused == 0
    assert len(late.kept()) == 50 + 21


async def test_a_cluster_that_does_not_know_its_folders_yet_waits(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1, "")
    rig.raft.apply(3)
    await rig.turn()
    assert not rig.shelf.folder.exists()
    rig.raft.known = {"a"}
    await rig.turn()
    assert rig.kept() == [2, 3, 4]


async def test_new_members_are_added_to_the_mark(tmp_path: Path) -> None:
    rig = await lived(tmp_path)
    rig.raft.epoch, rig.raft.known = 3, set("abcd")
    await rig.turn()
    assert rig.mark() == Life(3, tuple("abcd"))
    behind = Rig(tmp_path, 51, "abcd")
    behind.raft.epoch = 2
    await behind.turn()
    assert rig.mark().epoch == 3


async def test_once_the_old_shelf_is_moved_away_a_new_one_begins(tmp_path: Path) -> None:
    old = await lived(tmp_path)
    new = Rig(tmp_path, 5, "xyz")
    new.raft.is_leader = True
    new.raft.apply(2)
    await new.turn()
    old.shelf.folder.rename(tmp_path / "aside")
    await new.turn()
    assert new.refused == 0
    assert new.mark().folders == ("x", "y", "z")
    assert new.kept() == [6, 7]
    assert [full.index for full in new.shelf.fulls()] == [7]


async def test_a_shelf_that_is_moved_away_under_a_living_keeper_begins_anew(tmp_path: Path) -> None:
    rig = await lived(tmp_path)
    await rig.turn()
    rig.raft.apply(1)
    await rig.turn()
    rig.shelf.folder.rename(tmp_path / "aside")
    rig.raft.apply(1)
    await rig.turn()
    assert rig.kept() == [53]
    assert rig.mark().folders == ("a", "b", "c")


async def test_a_mark_that_cannot_be_read_is_a_failure_and_nothing_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = await lived(tmp_path)
    (old.shelf.folder / MARK).write_bytes(b"{")
    before = old.files()
    new = Rig(tmp_path, 60, "abc")
    new.raft.is_leader = True
    new.raft.apply(1)
    await new.turn()
    await new.turn()
    assert new.files() == before
    assert new.keeper.counts["backups_failed"] == 1
    assert "unreadable" in caplog.text


async def test_another_lifes_objects_stay_in_the_store(tmp_path: Path) -> None:
    store = Store(f"{STORE}/{CLUSTER.hex()}")
    await lived(tmp_path / "old", store=STORE)
    before = store.sizes()
    assert MARK in before
    new = Rig(tmp_path / "new", 5, "xyz", STORE, keep=1)
    new.raft.is_leader = True
    await new.turn()
    new.raft.apply(100)
    await new.sent()
    await new.turn()
    assert store.sizes() == before
    assert new.refused == 1
    assert new.keeper.counts["backups_written"] == 1, "its own folder is its own"
    fsspec.filesystem("memory").mv(f"/bucket/{CLUSTER.hex()}", "/bucket/aside", recursive=True)
    new.raft.apply(1)
    await new.sent()
    assert new.refused == 0
    assert len(store.sizes()) == 3  # the mark, a whole backup and log


async def test_a_store_without_a_mark_is_refused_by_its_names(tmp_path: Path) -> None:
    store = Store(f"{STORE}/{CLUSTER.hex()}")
    await lived(tmp_path / "old", store=STORE)
    store.remove([MARK])
    before = store.sizes()
    new = Rig(tmp_path / "new", 50, "xyz", STORE)
    await new.sent()
    assert store.sizes() == before
    again = Rig(tmp_path / "again", 51, "abc", STORE)
    await again.sent()
    assert again.refused == 0
    assert MARK in store.sizes()


async def test_a_slow_store_does_not_hold_up_the_kept_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "RETRY_S", 0.0)
    begun, goes_on = threading.Event(), threading.Event()
    put = Store.put

    def slow_put(self: Store, path: Path, name: str) -> None:
        begun.set()
        assert goes_on.wait(60)
        put(self, path, name)

    monkeypatch.setattr(Store, "put", slow_put)
    rig = Rig(tmp_path, 1, "abc", STORE)
    rig.raft.is_leader = True
    try:
        rig.raft.apply(2)
        await rig.turn()  # the log is kept and sent
        assert await asyncio.to_thread(begun.wait, 60)
        for _ in range(3):
            rig.raft.apply(2)
            await rig.turn()
        assert rig.keeper._is_sending()
        assert rig.kept() == list(range(2, 10))
        assert len(rig.shelf.fulls()) == 1, "nor for ever the first whole backup"
    finally:
        goes_on.set()
    assert rig.keeper._sending is not None
    await rig.keeper._sending
    await rig.sent()
    assert len(Store(f"{STORE}/{CLUSTER.hex()}").sizes()) > 2
    await rig.keeper.on_stop()


async def test_what_is_written_is_a_backup(tmp_path: Path) -> None:
    rig = await lived(tmp_path)
    (full,) = rig.shelf.fulls()
    with open_bundle(full.path) as bundle:
        bundle.check()
        assert bundle.manifest.index == full.index


def test_a_log_goes_on_in_another_file_when_its_folder_is_gone(tmp_path: Path) -> None:
    log = KeptLog(tmp_path / "shelf")
    log.append([(1, 7, b"entry")])
    (tmp_path / "shelf").rename(tmp_path / "aside")
    log.append([(2, 7, b"entry")])
    (file,) = kept_files(tmp_path / "shelf")
    assert [index for index, _, _ in read_entries(file.path)] == [2]
