"""P3s: single `submit` calls of concurrent tasks, which the SDK joins into batches by itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from bench.harness import QUIET, Result, Scale, by_status, replicas_equal
from chaos.live.processes import LocalCluster
from quorate import Client

CALLERS = (32, 256)
JOBS_PER_SINGLE = 5  # for each of the plain HTTP row's, which take so much longer
PAYLOAD = "x" * 98


class Run:
    """So many tasks that each submit one job after the other."""

    def __init__(self, url: str) -> None:
        self.client = Client(url)
        self.requests = 0
        self.ids: list[str] = []
        self._send = self.client.transport.request
        self.client.transport.request = self._counted  # type: ignore[method-assign]

    async def _counted(self, *args: Any, **options: Any) -> Any:
        self.requests += 1
        return await self._send(*args, **options)

    async def _caller(self, count: int) -> None:
        for _ in range(count):
            handle = await self.client.submit("noop", PAYLOAD)
            self.ids.append(handle.id)

    async def submit(self, callers: int, each: int) -> None:
        await asyncio.gather(*(self._caller(each) for _ in range(callers)))


async def measure(scale: Scale, folder: Path) -> list[Result]:
    async with LocalCluster(folder, flags=QUIET) as cluster:
        leader = await cluster.leader()
        return [await _measure(cluster, leader.url, n, scale) for n in CALLERS]


async def _measure(cluster: LocalCluster, url: str, callers: int, scale: Scale) -> Result:
    each = scale.singles * JOBS_PER_SINGLE // callers
    count, before = each * callers, (await by_status(cluster))["pending"]
    run = Run(url)
    async with run.client:
        cpu, started = time.process_time(), time.perf_counter()
        await run.submit(callers, each)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    submitted = (await by_status(cluster))["pending"] - before
    holds = len(set(run.ids)) == submitted == count and await replicas_equal(cluster)
    figures = {
        "rate": f"{count / seconds:,.0f} jobs/s",
        "jobs per request": f"{count / run.requests:.1f}",
        "cpu of the client": f"{cpu / count * 1e6:.1f} us per job",
    }
    what = f"SDK, single submits, {callers} concurrent tasks"
    return Result("P3s", what, figures, "more than P3", holds)
