"""Three real nodes in one process over loopback, and a machine small enough to compare."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from cluster.consensus import Consensus, ConsensusConfig, Outcome, Role

# Snapshots, segments and tails of a few entries, and snapshots on request only.
SMALL = {
    "trailing_entries": 5,
    "segment_bytes": 2000,
    "snapshot_chunk_bytes": 700,
    "snapshot_journal_bytes": 1 << 30,
}


def entries(first: int, count: int) -> list[bytes]:
    return [b"entry %06d " % number * 5 for number in range(first, first + count)]


class ListMachine:
    """Its state is the list of applied entries."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.indexes: list[int] = []
        self.truncations: list[int] = []
        self.restored = 0
        self.snapshot_fails = False

    def apply(self, entry: bytes, index: int) -> object:
        self.entries.append(entry)
        self.indexes.append(index)
        return len(self.entries)

    def snapshot(self) -> Iterator[bytes]:
        if self.snapshot_fails:
            raise RuntimeError("this state cannot be encoded")
        for entry in self.entries:
            yield len(entry).to_bytes(4, "big")
            yield entry

    def restore(self, chunks: Iterator[bytes]) -> None:
        data = b"".join(chunks)
        entries, offset = [], 0
        while offset < len(data):
            size = int.from_bytes(data[offset : offset + 4], "big")
            entries.append(data[offset + 4 : offset + 4 + size])
            offset += 4 + size
        self.entries = entries
        self.restored += 1

    async def before_truncate(self, index: int) -> None:
        self.truncations.append(index)


def free_addresses(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in sockets]
    for sock in sockets:
        sock.close()
    return addresses


@dataclass
class TestNode:
    """One node with its machine; `roles` is everything it was told."""

    __test__ = False
    config: ConsensusConfig
    machine: ListMachine = field(default_factory=ListMachine)
    roles: list[tuple[Role, int, str | None]] = field(default_factory=list)
    fatal: list[str] = field(default_factory=list)
    consensus: Consensus = field(init=False)

    def __post_init__(self) -> None:
        config = replace(self.config, on_fatal=self.fatal.append)
        self.consensus = Consensus(config, self.machine, self._on_role)

    def _on_role(self, role: Role, term: int, leader: str | None) -> None:
        self.roles.append((role, term, leader))

    @property
    def id(self) -> str:
        return self.config.node_id

    def propose(self, entry: bytes) -> asyncio.Future[tuple[Outcome, object]]:
        future: asyncio.Future[tuple[Outcome, object]] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome, result: object) -> None:
            assert not future.done(), "a callback was called twice"
            future.set_result((outcome, result))

        self.consensus.propose(entry, done)
        return future

    def again(self, **changes: Any) -> TestNode:
        """A fresh object over the same folder, as after a restart."""
        return TestNode(replace(self.config, **changes))


class Cluster:
    """A set of nodes that are started, stopped and crashed by name."""

    def __init__(self, folder: Path, count: int, **settings: Any) -> None:
        ids = free_addresses(count)
        self.folder = folder
        self.nodes = [
            TestNode(
                ConsensusConfig(
                    node_id=node_id,
                    listen=node_id,
                    peers=tuple(other for other in ids if other != node_id),
                    data_dir=folder / f"n{position}",
                    cluster_secret="open sesame",
                    meta={"http": f"http-{position}"},
                    **settings,
                )
            )
            for position, node_id in enumerate(ids)
        ]

    async def start(self) -> None:
        await asyncio.gather(*(node.consensus.start() for node in self.nodes))

    async def stop(self) -> None:
        for node in self.nodes:
            with contextlib.suppress(Exception):
                await node.consensus.stop()

    async def restart(self, position: int, **changes: Any) -> TestNode:
        node = self.nodes[position] = self.nodes[position].again(**changes)
        await node.consensus.start()
        return node

    async def leader(self, *, but: TestNode | None = None) -> TestNode:
        def find() -> TestNode | None:
            ready = [n for n in self.nodes if n is not but and n.consensus.is_leader_ready]
            return max(ready, key=lambda n: n.consensus.term) if ready else None

        return await until(find)

    async def commit(self, *entries: bytes) -> None:
        """Proposes at whoever leads until every entry is applied."""
        for entry in entries:
            leader = await self.leader()
            outcome, detail = await leader.propose(entry)
            assert outcome is Outcome.APPLIED, detail

    async def all_equal(self) -> list[bytes]:
        """Waits until every running node has applied the same log, and returns it."""
        leader = await self.leader()
        index = leader.consensus.applied_index
        await until(lambda: all(n.consensus.applied_index >= index for n in self.nodes))
        states = [node.machine.entries for node in self.nodes]
        assert all(state == states[0] for state in states)
        return states[0]

    def followers(self, leader: TestNode) -> list[TestNode]:
        return [node for node in self.nodes if node is not leader]


T = TypeVar("T")


async def until(condition: Callable[[], T | None], seconds: float = 15.0) -> T:
    """The first true answer of the condition, looked at every few ms."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return found


@contextlib.asynccontextmanager
async def running(folder: Path, count: int, **settings: Any) -> AsyncIterator[Cluster]:
    cluster = Cluster(folder, count, **settings)
    try:
        await cluster.start()
        yield cluster
        assert [node.fatal for node in cluster.nodes] == [[] for _ in cluster.nodes]
    finally:
        await cluster.stop()
