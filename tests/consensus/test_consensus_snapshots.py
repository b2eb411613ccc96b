"""Snapshots: taken, sent, installed, damaged, and what a node does with each."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from consensus_helpers import SMALL, TestNode, entries, running, until

from cluster.consensus import ConsensusStartError, Outcome, SnapshotError
from cluster.consensus.members import first_members
from cluster.consensus.snapfile import (
    SnapshotFile,
    SnapshotFileError,
    read_chunks,
    validate,
    write_content,
)
from cluster.consensus.snapreceive import Arrived, SnapshotReceiver
from cluster.consensus.snapsend import SnapshotSender
from cluster.consensus.snapstore import SnapshotStore
from cluster.consensus.storage import FILES
from cluster.consensus.wire import SnapshotChunk, SnapshotReply

CLUSTER = b"c" * 16
MEMBERS = first_members(("a:1", "b:1", "c:1"))


def list_snapshots(folder: Path) -> list[SnapshotFile]:
    return SnapshotStore(FILES, folder, CLUSTER).all()


def snapshots_of(node: TestNode) -> list[int]:
    return [s.index for s in list_snapshots(node.config.data_dir / "snapshots")]


def write_file(path: Path, chunks: list[bytes], index: int = 7, term: int = 2) -> None:
    with path.open("wb") as file:
        write_content(file, cluster=CLUSTER, index=index, term=term, members=MEMBERS, chunks=chunks)


async def test_a_snapshot_shortens_disk_and_restart(tmp_path: Path) -> None:
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        await cluster.commit(*entries(0, 100))
        before = node.consensus.status()["journal_bytes"]
        index = await node.consensus.snapshot_now()
        assert index == node.consensus.applied_index
        assert node.machine.truncations == [index]
        await cluster.commit(*entries(100, 1))
        await until(lambda: node.consensus.status()["journal_bytes"] < before / 2)  # type: ignore[operator]
        assert node.consensus.status()["first_index"] >= index - 5  # type: ignore[operator]
        await node.consensus.stop()
        node = await cluster.restart(0)
        assert node.machine.restored == 1
        await until(lambda: node.machine.entries == entries(0, 101))
        assert len(node.machine.indexes) <= 2


async def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        taken = []
        for first in range(0, 40, 10):
            await cluster.commit(*entries(first, 10))
            taken.append(await node.consensus.snapshot_now())
        assert snapshots_of(node) == taken[:-3:-1]


async def test_journal_growth_starts_a_snapshot(tmp_path: Path) -> None:
    async with running(tmp_path, 3, **{**SMALL, "snapshot_journal_bytes": 5000}) as cluster:
        await cluster.commit(*entries(0, 200))
        await until(lambda: all(snapshots_of(node) for node in cluster.nodes))
        await cluster.commit(b"after")
        assert await cluster.all_equal() == [*entries(0, 200), b"after"]


async def test_no_snapshot_is_taken_while_the_log_is_replayed(tmp_path: Path) -> None:
    """It would cover next to nothing. Found by killing nodes again and again: each restart took
    one at its first step, counted the growth as dealt with, and had more to replay than the last.
    """
    async with running(tmp_path, 3, **SMALL) as cluster:
        await cluster.commit(*entries(0, 100))
        await cluster.all_equal()
        for node in cluster.nodes:
            await node.consensus.stop()
        node = await cluster.restart(0, snapshot_journal_bytes=1000)  # alone it applies nothing
        last = node.consensus.status()["last_index"]
        await until(lambda: node.consensus.status()["runs"] > 20)  # type: ignore[operator]
        assert snapshots_of(node) == []
        await cluster.restart(1)
        await until(lambda: snapshots_of(node))
        assert snapshots_of(node)[0] >= last  # type: ignore[operator]


async def test_a_follower_behind_the_log_gets_the_snapshot(tmp_path: Path) -> None:
    async with running(tmp_path, 3, **SMALL) as cluster:
        await cluster.commit(*entries(0, 5))
        leader = await cluster.leader()
        behind = cluster.followers(leader)[0]
        await behind.consensus.stop()
        await cluster.commit(*entries(5, 200))
        for node in cluster.nodes:
            if node is not behind:
                await node.consensus.snapshot_now()
        node = await cluster.restart(cluster.nodes.index(behind))
        await cluster.commit(*entries(205, 5))
        assert await cluster.all_equal() == entries(0, 210)
        assert node.consensus.status()["snapshots_installed"] == 1
        assert node.consensus.status()["snapshot_index"] == snapshots_of(node)[0]
        assert node.machine.restored == 1
        await node.consensus.stop()
        node = await cluster.restart(cluster.nodes.index(node))
        assert await cluster.all_equal() == entries(0, 210)


async def test_a_new_leader_needs_no_follower_from_before_its_snapshot(tmp_path: Path) -> None:
    """With one node down, the other follower is needed for the quorum while it installs (C4)."""
    async with running(tmp_path, 3, **SMALL) as cluster:
        leader = await cluster.leader()
        one, two = cluster.followers(leader)
        await one.consensus.stop()
        await cluster.commit(*entries(0, 150))
        await leader.consensus.snapshot_now()
        await two.consensus.stop()
        await cluster.restart(cluster.nodes.index(one))
        await cluster.commit(b"last")
        leader = await cluster.leader()
        assert leader.machine.entries == [*entries(0, 150), b"last"]
        await cluster.restart(cluster.nodes.index(two))
        assert await cluster.all_equal() == [*entries(0, 150), b"last"]


async def test_a_failing_snapshot_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        await cluster.commit(*entries(0, 50))
        node.machine.snapshot_fails = True
        with pytest.raises(SnapshotError, match="cannot be encoded"):
            await node.consensus.snapshot_now()
        assert snapshots_of(node) == []
        assert node.machine.truncations == []
        node.machine.snapshot_fails = False
        await node.consensus.snapshot_now()
        await cluster.commit(b"after")


async def test_a_failed_snapshot_leaves_no_file_and_is_tried_again(tmp_path: Path) -> None:
    """Half a file on a full disk would take what the journal needs, until the next restart."""
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        await cluster.commit(*entries(0, 50))
        journal = node.consensus._journal
        assert journal is not None
        grown = journal.grown_bytes

        def half() -> Iterator[bytes]:
            yield b"x" * (2 << 20)
            raise OSError(28, "No space left on device")

        node.machine.snapshot = half  # type: ignore[method-assign]
        with pytest.raises(SnapshotError, match=r"^\[Errno 28\] No space left on device$"):
            await node.consensus.snapshot_now()
        assert list((node.config.data_dir / "snapshots").iterdir()) == []
        assert journal.grown_bytes == grown


async def test_a_snapshot_that_cannot_fit_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        await cluster.commit(*entries(0, 50))
        index = await node.consensus.snapshot_now()
        await cluster.commit(*entries(50, 50))
        space = shutil.disk_usage(tmp_path)._replace(free=100)
        with monkeypatch.context() as patch, pytest.raises(SnapshotError, match="100 bytes left"):
            patch.setattr("shutil.disk_usage", lambda path: space)
            await node.consensus.snapshot_now()
        assert snapshots_of(node) == [index]
        assert await node.consensus.snapshot_now() > index


async def test_a_damaged_newest_snapshot_falls_back_to_the_older(tmp_path: Path) -> None:
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        for first in (0, 50):
            await cluster.commit(*entries(first, 50))
            await node.consensus.snapshot_now()
        await cluster.commit(b"after")
        await node.consensus.stop()
        newest, older = list_snapshots(node.config.data_dir / "snapshots")
        flip(newest.path, newest.path.stat().st_size // 2)
        node = await cluster.restart(0)
        await until(lambda: node.machine.entries == [*entries(0, 100), b"after"])
        await node.consensus.stop()
        flip(older.path, 60)
        again = node.again()
        with pytest.raises(ConsensusStartError, match=r"snap-.*damaged.*restore"):
            await again.consensus.start()


async def test_a_lost_snapshot_is_not_mistaken_for_an_empty_node(tmp_path: Path) -> None:
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        for first in (0, 50, 100):
            await cluster.commit(*entries(first, 50))
            await node.consensus.snapshot_now()
        await cluster.commit(b"after")
        await node.consensus.stop()
        for snapshot in list_snapshots(node.config.data_dir / "snapshots"):
            snapshot.path.unlink()
        with pytest.raises(ConsensusStartError, match="no snapshot that reaches"):
            await node.again().consensus.start()


async def test_a_lost_journal_beside_a_snapshot_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        await cluster.commit(*entries(0, 50))
        await node.consensus.snapshot_now()
        await cluster.commit(b"after")
        await node.consensus.stop()
        for segment in (node.config.data_dir / "journal").glob("*.seg"):
            segment.unlink()
        with pytest.raises(
            ConsensusStartError, match=r"journal .*(was in use|once durable, is missing)"
        ):
            await node.again().consensus.start()


async def test_a_crash_between_snapshot_and_log_loses_nothing(tmp_path: Path) -> None:
    """B3: the file has its name, the log was not shortened; the library would clear the log."""
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        await cluster.commit(*entries(0, 30))
        snapshotter = node.consensus._snapshotter
        assert snapshotter is not None
        snapshotter._compact = lambda: None  # type: ignore[method-assign]
        await node.consensus.snapshot_now()
        await cluster.commit(*entries(30, 20))
        node.consensus.abort()
        node = await cluster.restart(0)
        await until(lambda: node.machine.entries == entries(0, 50))
        assert node.machine.restored == 1


async def test_no_snapshot_counts_before_the_machine_is_ready_for_it(tmp_path: Path) -> None:
    """A crash while the machine saves its history: everything is replayed from the log."""
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        await cluster.commit(*entries(0, 30))
        reached = asyncio.Event()

        async def hang(index: int) -> None:
            reached.set()
            await asyncio.Event().wait()

        node.machine.before_truncate = hang  # type: ignore[method-assign]
        task = asyncio.ensure_future(node.consensus.snapshot_now())
        await reached.wait()
        assert snapshots_of(node) == []
        node.consensus.abort()
        with pytest.raises(SnapshotError, match="stopping"):
            await task
        node = await cluster.restart(0)
        await until(lambda: node.machine.entries == entries(0, 30))
        assert node.machine.restored == 0
        assert list(node.config.data_dir.glob("snapshots/*.tmp")) == []


async def test_proposals_go_on_while_a_snapshot_is_written(tmp_path: Path) -> None:
    async with running(tmp_path, 1, **SMALL) as cluster:
        node = await cluster.leader()
        await cluster.commit(*entries(0, 20))
        task = asyncio.ensure_future(node.consensus.snapshot_now())
        outcomes = [(await node.propose(entry))[0] for entry in entries(20, 20)]
        assert set(outcomes) == {Outcome.APPLIED}
        assert await task >= 21
        await node.consensus.stop()
        node = await cluster.restart(0)
        await until(lambda: node.machine.entries == entries(0, 40))


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_every_flipped_or_missing_byte_of_a_snapshot_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_file(path, [b"one", b"", b"three" * 10])
    data = path.read_bytes()
    assert list(read_chunks(FILES, path, CLUSTER, 7, 2)) == [b"one", b"", b"three" * 10]
    for position in range(len(data)):
        path.write_bytes(data[:position])
        with pytest.raises(SnapshotFileError):
            validate(FILES, path, CLUSTER, 7, 2)
        path.write_bytes(data)
        flip(path, position)
        with pytest.raises(SnapshotFileError):
            validate(FILES, path, CLUSTER, 7, 2)
    path.write_bytes(data)
    for cluster, index, term in ((b"d" * 16, 7, 2), (CLUSTER, 8, 2), (CLUSTER, 7, 3)):
        with pytest.raises(SnapshotFileError):
            validate(FILES, path, cluster, index, term)


def test_a_writer_whose_node_is_gone_stops(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x"

    answers = iter([True, True, False])
    with (tmp_path / "s").open("wb") as file, pytest.raises(InterruptedError):
        write_content(
            file,
            cluster=CLUSTER,
            index=1,
            term=1,
            members=MEMBERS,
            chunks=endless(),
            keep_going=lambda: next(answers),
        )


class Stream:
    """A sender and a receiver with nothing but this list between them."""

    def __init__(self, folder: Path, content: list[bytes]) -> None:
        source, target = folder / "source", folder / "target"
        source.mkdir()
        target.mkdir()
        temporary = source / "t"
        write_file(temporary, content)
        store = SnapshotStore(FILES, source, CLUSTER)
        store.publish(temporary, 7, 2)
        sender = SnapshotSender.open(store, 100)
        assert sender is not None
        self.sender = sender
        self.target = target
        self.arrived: list[Arrived] = []
        self.receiver = SnapshotReceiver(
            SnapshotStore(FILES, target, CLUSTER),
            lambda job, done: done(job()),
            lambda peer, arrived: self.arrived.append(arrived),
        )
        self.seq = 0

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def pump(self) -> list[tuple[SnapshotChunk, bytes]]:
        pumped = self.sender.pump(3, self, heartbeat=True, room=True)
        return [(chunk, b"".join(blob.parts)) for chunk, blob in pumped]

    def deliver(self, chunk: SnapshotChunk, data: bytes) -> None:
        have = self.receiver.on_chunk("a", chunk, data)
        if not self.arrived:
            self.sender.on_reply(SnapshotReply(3, chunk.seq, chunk.index, have))


@pytest.mark.parametrize("fault", ["none", "loss", "repeat", "reorder"])
def test_a_stream_survives(tmp_path: Path, fault: str) -> None:
    content = [os.urandom(333) for _ in range(20)]
    stream = Stream(tmp_path, content)
    for turn in range(200):
        if stream.arrived:
            break
        chunks = stream.pump()
        if fault == "loss" and turn % 3 == 1:
            chunks = chunks[1:]
        elif fault == "repeat":
            chunks = [chunk for chunk in chunks for _ in range(2)]
        elif fault == "reorder" and turn % 2:
            chunks = chunks[::-1]
        for chunk, data in chunks:
            if not stream.arrived:
                stream.deliver(chunk, data)
    snapshot = stream.arrived[0].snapshot
    assert snapshot is not None
    assert list(read_chunks(FILES, snapshot.path, CLUSTER, 7, 2)) == content


def test_a_stream_with_a_damaged_file_is_not_published(tmp_path: Path) -> None:
    stream = Stream(tmp_path, [b"x" * 500])
    flip(next((tmp_path / "source").glob("*.snap")), 300)
    while not stream.arrived:
        for chunk, data in stream.pump():
            stream.deliver(chunk, data)
    assert stream.arrived[0].snapshot is None
    assert list_snapshots(stream.target) == []


def test_a_transfer_goes_on_where_it_was_after_a_reconnect(tmp_path: Path) -> None:
    stream = Stream(tmp_path, [b"x" * 2000])
    for _ in range(3):
        for chunk, data in stream.pump():
            stream.deliver(chunk, data)
    second = SnapshotSender.open(SnapshotStore(FILES, tmp_path / "source", CLUSTER), 100)
    assert second is not None
    stream.sender = second
    question, nothing = stream.pump()[0]
    assert nothing == b""
    stream.deliver(question, nothing)
    chunk, _ = stream.pump()[0]
    assert chunk.offset > 0
