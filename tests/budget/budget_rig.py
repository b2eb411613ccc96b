"""Three real nodes, a worker and a client in one event loop, and counters over all of them.

Real sockets, disks and threads, so a round may need a frame or an entry more than the one before:
whoever counts takes the cheapest of several rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bench.harness import varied_body
from bench.tasks import app
from cluster import Node, Settings
from cluster.machine.effects import Effects
from quorate.testing import free_port
from quorate.worker import Worker

PAYLOAD_BYTES = 100
GIVE_UP_S = 60.0


class FrameCounter:
    """WebSocket frames and their bytes, by who sends them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self._watch(monkeypatch, web.WebSocketResponse, "leader")
        self._watch(monkeypatch, aiohttp.ClientWebSocketResponse, "worker")

    def _watch(self, monkeypatch: pytest.MonkeyPatch, sender: Any, name: str) -> None:
        send_bytes = sender.send_bytes

        async def counted(socket: Any, data: bytes, *arguments: Any) -> None:
            self.frames[name] += 1
            self.bytes[name] += len(data)
            await send_bytes(socket, data, *arguments)

        monkeypatch.setattr(sender, "send_bytes", counted)


class Rig:
    """The leader is `nodes[0]` or not; `leader` tells."""

    def __init__(self, nodes: list[Node], session: aiohttp.ClientSession) -> None:
        self.nodes = nodes
        self._session = session
        self._submitted = 0
        self._applied = asyncio.Event()
        for node in nodes:
            node.raft.on_effects(self._on_effects)

    @property
    def leader(self) -> Node:
        return next(node for node in self.nodes if node.raft.is_leader)

    @property
    def followers(self) -> list[Node]:
        return [node for node in self.nodes if not node.raft.is_leader]

    def _on_effects(self, effects: Effects, index: int) -> None:
        self._applied.set()

    async def run(self, jobs: int) -> None:
        """One batch, until it is completed on every node and written into every history."""
        self._submitted += jobs
        url = f"http://{self.leader.settings.http}"
        headers = {"Content-Type": "application/json", "Prefer": "return=minimal"}
        body = varied_body(jobs, "noop", PAYLOAD_BYTES)
        async with self._session.post(f"{url}/v1/jobs/batch", data=body, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
        await self.until(self._is_done)
        for node in self.nodes:
            await node.history.flushed(node.raft.applied_index)
        async with self._session.get(f"{url}/livez") as answer:  # what was sent last has left
            await answer.read()

    def history_bytes(self) -> int:
        """Of the leader: pages of its file that are in use."""
        path = self.leader.settings.data / "history.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
        return int(pages * page_bytes)

    def _is_done(self) -> bool:
        return all(n.raft.state.totals.completed == self._submitted for n in self.nodes)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Looked at whenever a node has applied something."""
        async with asyncio.timeout(GIVE_UP_S):
            while not condition():
                self._applied.clear()
                await self._applied.wait()


@contextlib.asynccontextmanager
async def three_nodes(folder: Path) -> AsyncIterator[Rig]:
    """Heartbeats are rare, so that time is not counted; elections are in time all the same."""
    rafts = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    nodes = [
        Node(
            Settings(
                listen=raft,
                http=f"127.0.0.1:{free_port()}",
                peers=tuple(rafts),
                data=folder / f"n{number}",
                heartbeat_ms=400,
                election_min_ms=1_300,
                election_max_ms=2_600,
            )
        )
        for number, raft in enumerate(rafts)
    ]
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for node in nodes:
            await node.start()
            stack.push_async_callback(node.stop)
        async with asyncio.timeout(GIVE_UP_S):
            await asyncio.gather(*(node.ready(GIVE_UP_S) for node in nodes))
        urls = [f"http://{node.settings.http}" for node in nodes]
        worker = Worker(app, nodes=urls, slots=2_000, name="w1")
        await stack.enter_async_context(worker)
        await worker.registered.wait()
        rig = Rig(nodes, session)
        await rig.run(10)
        yield rig


@contextlib.contextmanager
def readings(take: Callable[[], dict[str, float]]) -> Iterator[dict[str, float]]:
    """What was added to each counter inside the block; filled in at its end."""
    added: dict[str, float] = {}
    before = take()
    yield added
    added.update({name: value - before[name] for name, value in take().items()})
