"""Snapshots that go wrong while a node runs: hung writers, rotten files, history that lags."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from consensus_helpers import SMALL, ListMachine, TestNode, entries, running, until

from chaos.sim.disk import MemoryStorage
from cluster.consensus import SnapshotError
from cluster.consensus import snapshotter as snapshotter_module
from cluster.consensus.interface import Adopt
from cluster.consensus.records import BASE, ENTRY, HARD_STATE, record
from cluster.consensus.recovery import Recovered
from cluster.consensus.segments import Batch, SegmentFiles
from cluster.consensus.snapfile import SnapshotFile
from cluster.consensus.snapsend import SnapshotSender
from cluster.consensus.snapstore import SnapshotStore
from cluster.consensus.storage import FILES
from cluster.consensus.wire import FrameDecoder, SnapshotReply, encode_frame

CLUSTER = b"c" * 16


def snapshots_of(node: TestNode) -> list[SnapshotFile]:
    return SnapshotStore(FILES, node.config.data_dir / "snapshots", CLUSTER).all()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def test_a_writer_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshotter_module, "HUNG_AFTER_S", 0.3)
    monkeypatch.setattr(snapshotter_module, "LOOK_EVERY_S", 0.05)
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        await cluster.commit(*entries(0, 20))
        works = node.machine.snapshot

        def hangs() -> Iterator[bytes]:
            yield b"x"
            time.sleep(3600)

        node.machine.snapshot = hangs  # type: ignore[method-assign]
        with pytest.raises(SnapshotError, match="the writer did nothing"):
            await node.consensus.snapshot_now()
        assert snapshots_of(node) == []
        node.machine.snapshot = works  # type: ignore[method-assign]
        assert await node.consensus.snapshot_now() == node.consensus.applied_index


async def test_a_snapshot_is_of_the_moment_it_was_asked_for(tmp_path: Path) -> None:
    """Entries applied before the writer has begun would be applied twice after a restart."""
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        await cluster.commit(*entries(0, 20))
        futures = [node.propose(entry) for entry in entries(20, 50)]
        task = asyncio.ensure_future(node.consensus.snapshot_now())
        await asyncio.gather(*futures)
        await task
        await node.consensus.stop()
        node = await cluster.restart(0)
        await until(lambda: node.machine.entries == entries(0, 70))


async def test_history_that_cannot_be_written_holds_the_log_and_then_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshotter_module, "HISTORY_WAIT_S", 0.1)
    settings = {**SMALL, "snapshot_journal_bytes": 500, "trailing_bytes": 500}
    async with running(tmp_path, 1, **settings) as cluster:
        node = await cluster.leader()

        async def never(index: int) -> None:
            await asyncio.Event().wait()

        works = node.machine.before_truncate
        node.machine.before_truncate = never  # type: ignore[method-assign]
        await cluster.commit(*entries(0, 10))
        with pytest.raises(SnapshotError, match="the history is not written up to entry"):
            await node.consensus.snapshot_now()
        assert not node.consensus.status()["disk_full"]
        await cluster.commit(*entries(10, 60))
        with pytest.raises(SnapshotError, match="the history is not written"):
            await node.consensus.snapshot_now()
        await until(lambda: node.consensus.status()["disk_full"])
        node.machine.before_truncate = works  # type: ignore[method-assign]
        await node.consensus.snapshot_now()
        await until(lambda: not node.consensus.status()["disk_full"])
        await cluster.commit(b"after")


@pytest.mark.parametrize("is_unreadable", [False, True])
async def test_a_leader_does_not_send_a_rotten_snapshot_for_ever(
    tmp_path: Path, is_unreadable: bool
) -> None:
    async with running(tmp_path, 3, **SMALL) as cluster:
        await cluster.commit(*entries(0, 5))
        leader = await cluster.leader()
        behind = cluster.followers(leader)[0]
        await behind.consensus.stop()
        await cluster.commit(*entries(5, 100))
        rotten = await leader.consensus.snapshot_now()
        if is_unreadable:
            break_reading(leader, rotten)
        else:
            flip(snapshots_of(leader)[0].path)
        await cluster.commit(*entries(105, 20))
        await cluster.restart(cluster.nodes.index(behind))
        assert await cluster.all_equal() == entries(0, 125)
        assert leader.consensus.status()["errors"]["rotten_snapshot"] == 1  # type: ignore[index]
        assert rotten not in [snapshot.index for snapshot in snapshots_of(leader)]


def break_reading(node: TestNode, index: int) -> None:
    """Sectors of that file that the disk cannot read any more."""
    core = node.consensus._core
    assert core is not None
    store = core.replicator.snapshots
    assert store is not None

    class Unreadable(type(store.storage)):  # type: ignore[misc]
        def read_at(self, descriptor: int, count: int, offset: int) -> bytes:
            if str(index) in Path(f"/proc/self/fd/{descriptor}").readlink().name:
                raise OSError(5, "Input/output error")
            return bytes(super().read_at(descriptor, count, offset))

    store.storage = Unreadable()


async def test_a_follower_a_little_behind_needs_no_snapshot(tmp_path: Path) -> None:
    async with running(tmp_path, 3, **{**SMALL, "trailing_entries": 50}) as cluster:
        await cluster.commit(*entries(0, 100))
        leader = await cluster.leader()
        behind = cluster.followers(leader)[0]
        await until(lambda: behind.consensus.applied_index == leader.consensus.applied_index)
        await behind.consensus.stop()
        await cluster.commit(*entries(100, 40))
        for node in cluster.nodes:
            if node is not behind:
                await node.consensus.snapshot_now()
        node = await cluster.restart(cluster.nodes.index(behind))
        assert await cluster.all_equal() == entries(0, 140)
        assert node.consensus.status()["snapshots_installed"] == 0


# Large files -------------------------------------------------------------------------------------


def test_a_snapshot_beyond_4_gib_is_sent_from_any_offset(tmp_path: Path) -> None:
    size = (5 << 30) + 17
    path = tmp_path / "snap-00000000000000000007-00000000000000000002.snap"
    with path.open("wb") as file:
        file.truncate(size)  # sparse
        file.seek(size - 9)
        file.write(b"the end..")
    sender = SnapshotSender.open(SnapshotStore(FILES, tmp_path, CLUSTER), 1 << 20)
    assert sender is not None

    class Counting:
        seq = 0

        def next_seq(self) -> int:
            self.seq += 1
            return self.seq

    seq = Counting()
    [(question, _)] = sender.pump(3, seq, heartbeat=True, room=True)
    sender.on_reply(SnapshotReply(3, question.seq, 7, (5 << 30) + 8))
    [(chunk, blob)] = sender.pump(3, seq, heartbeat=True, room=True)
    assert blob.parts == (b"the end..",)
    frame = encode_frame(chunk, blob) + b"".join(blob.parts)
    [(arrived, data)] = FrameDecoder().feed(frame)
    assert (arrived, data) == (chunk, b"the end..")
    sender.close()


class Sparse(MemoryStorage):
    """Takes writes at any offset and remembers where they were."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[int] = []

    def allocate(self, descriptor: int, size: int) -> bool:
        return True

    def truncate(self, descriptor: int, size: int) -> None: ...

    def write_at(self, descriptor: int, parts: object, offset: int) -> None:
        self.ends.append(offset + sum(map(len, parts)))  # type: ignore[call-overload]


def test_a_segment_beyond_4_gib_goes_on(tmp_path: Path) -> None:
    """The library's journal stops there with the entry in memory and not on disk (B9)."""
    storage = Sparse()
    storage.make_folder(Path("/j"))
    files = SegmentFiles(storage, Path("/j"), CLUSTER, Recovered(), 6 << 30, fsync=True)
    opening = [b"".join(record(HARD_STATE, 1, 0)), *record(BASE, 1, 0)]
    for index in range(2, 5):
        files.append(Batch(index, index, record(ENTRY, index, 0, bytes(1000)), opening))
        files.sync()
        files._segments[-1].size = max(files._size, (1 << 32) - 500)
    assert storage.ends == sorted(storage.ends)
    assert files.size_bytes() == storage.ends[-1] > 1 << 32


class LoadingMachine(ListMachine):
    """Loads beside the running state."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []
        self.dropped: list[list[bytes]] = []

    def load(self, chunks: Iterator[bytes]) -> Adopt:
        self.threads.append(threading.current_thread().name)
        new = ListMachine()
        new.restore(chunks)

        def adopt() -> Callable[[], None]:
            self.threads.append(threading.current_thread().name)
            old, self.entries = self.entries, new.entries
            return lambda: self.dropped.append(old)

        return adopt


async def test_a_received_snapshot_is_loaded_aside_and_adopted_on_the_loop(tmp_path: Path) -> None:
    async with running(tmp_path, 3, **SMALL) as cluster:
        await cluster.commit(*entries(0, 5))
        leader = await cluster.leader()
        behind = cluster.followers(leader)[0]
        await until(lambda: len(behind.machine.entries) == 5)
        await behind.consensus.stop()
        await cluster.commit(*entries(5, 100))
        for node in cluster.followers(behind):
            await node.consensus.snapshot_now()
        machine = LoadingMachine()
        node = TestNode(behind.config, machine)
        cluster.nodes[cluster.nodes.index(behind)] = node
        await node.consensus.start()
        assert await cluster.all_equal() == entries(0, 105)
        assert node.consensus.status()["snapshots_installed"] == 1
        main = threading.current_thread().name
        assert machine.threads[0] != main
        assert machine.threads[1:] == [main]
        await until(lambda: len(machine.dropped) == 1)
