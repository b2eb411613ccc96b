"""P10: what an idle cluster costs: CPU time and wake-ups of each node while nothing happens.

Once without workers, once with many that are connected and have nothing to do. Nothing may enter
the log meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.harness import QUIET, TICKS_PER_S, Result, Scale, rss_mb
from chaos.live.processes import LocalCluster, NodeChild
from quorate.worker.frames import SUBPROTOCOL, encode

SETTLE_S = 12.0  # until clocks are compared as seldom as they will be
IDLE_S = {"quick": 20.0, "full": 60.0}
WORKERS = 1_000
BEAT_S = 3.0
HEARTBEAT = encode(("heartbeat",))


@dataclass(frozen=True)
class Spent:
    """By one process so far."""

    cpu_s: float
    wakeups: int
    log_index: int


async def measure(scale: Scale, folder: Path) -> list[Result]:
    seconds = IDLE_S[scale.name]
    async with LocalCluster(folder, flags=QUIET) as cluster:
        await asyncio.sleep(SETTLE_S)
        alone = await _idle(cluster, seconds)
        before = max(rss_mb(cluster))
        async with Crowd(cluster, WORKERS):
            await asyncio.sleep(SETTLE_S)
            crowded = await _idle(cluster, seconds)
            memory_kb = (max(rss_mb(cluster)) - before) * 1024 / WORKERS
    return [
        _result("three nodes, no workers", alone, {}),
        _result(
            f"three nodes, {WORKERS:,} idle workers with heartbeats every {BEAT_S:g} s",
            crowded,
            {"leader's memory a worker": f"{memory_kb:.0f} KiB"},
        ),
    ]


def _result(what: str, figures: dict[str, Any], more: dict[str, str]) -> Result:
    shown = {
        "leader": f"{figures['leader']:.2f} %",
        "followers": " and ".join(f"{share:.2f} %" for share in figures["followers"]),
        "wake-ups": ", ".join(f"{rate:.0f}/s" for rate in figures["wakeups"]),
        "entries": str(figures["entries"]),
        **more,
    }
    return Result("P10", what, shown, "<= 2 % of one core a node", figures["entries"] == 0)


async def _idle(cluster: LocalCluster, seconds: float) -> dict[str, Any]:
    leader = await cluster.leader()
    nodes = [leader, *(node for node in cluster.nodes if node is not leader)]
    before, began = [await _spent(cluster, node) for node in nodes], time.perf_counter()
    await asyncio.sleep(seconds)
    after, took_s = [await _spent(cluster, node) for node in nodes], time.perf_counter() - began
    pairs = list(zip(before, after, strict=True))
    shares = [(b.cpu_s - a.cpu_s) / took_s * 100 for a, b in pairs]
    return {
        "leader": shares[0],
        "followers": shares[1:],
        "wakeups": [(b.wakeups - a.wakeups) / took_s for a, b in pairs],
        "entries": max(b.log_index - a.log_index for a, b in pairs),
    }


async def _spent(cluster: LocalCluster, node: NodeChild) -> Spent:
    status: Any = await cluster.get("/v1/cluster", node)
    fields = Path(f"/proc/{node.pid}/stat").read_text().rsplit(")", 1)[1].split()
    wakeups = 0
    for thread in Path(f"/proc/{node.pid}/task").iterdir():
        for line in (thread / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                wakeups += int(line.split()[1])
    ticks = int(fields[11]) + int(fields[12])
    return Spent(ticks / TICKS_PER_S, wakeups, status["applied_index"])


class Crowd:
    """Connected workers that take no job and say every few seconds that they live."""

    def __init__(self, cluster: LocalCluster, count: int) -> None:
        self._cluster = cluster
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Crowd:
        leader = await self._cluster.leader()
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector)
        registered = asyncio.Semaphore(0)
        url = f"{leader.url}/v1/workers/stream"
        for _ in range(self._count):
            self._tasks.append(asyncio.create_task(self._live(url, registered)))
            await asyncio.sleep(BEAT_S / self._count)  # so that they do not all beat at once
        for _ in range(self._count):
            await registered.acquire()
        return self

    async def _live(self, url: str, registered: asyncio.Semaphore) -> None:
        async with self._session.ws_connect(url, protocols=(SUBPROTOCOL,)) as socket:
            offer = {"name": "idle", "slots": 1, "queues": ["default"], "tasks": ["noop"]}
            await socket.send_bytes(encode(("register", offer)))
            await socket.receive_bytes()
            registered.release()
            reading = asyncio.create_task(self._read(socket))
            try:
                while True:
                    await asyncio.sleep(BEAT_S)
                    await socket.send_bytes(HEARTBEAT)
            finally:
                reading.cancel()

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for _ in socket:
            pass

    async def __aexit__(self, *reason: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()
