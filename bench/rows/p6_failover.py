"""P6: the leader is killed with -9; time to the next accepted submission and the next start."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench.harness import QUIET, Result, Scale, by_status, quantile, replicas_equal
from chaos.live.processes import LocalCluster
from quorate import Client

SETTLE_S = 1.0


async def measure(scale: Scale, folder: Path) -> list[Result]:
    accepted_ms, started_ms, submitted = [], [], 0
    async with LocalCluster(folder, flags=QUIET) as cluster, Client(cluster.urls) as client:
        await cluster.worker("w1", "bench.tasks:app", slots=100)
        for _ in range(scale.kills):
            await asyncio.sleep(SETTLE_S)
            leader = await cluster.leader()
            await (await client.submit("stamp", "warm")).result(20)
            killed = time.time()
            await leader.kill()
            handle = await client.submit("stamp", "after")
            accepted_ms.append((time.time() - killed) * 1000)
            started_ms.append((await handle.result(20) - killed) * 1000)
            submitted += 2
            await leader.start()
            await cluster.ready()
        completed = (await by_status(cluster))["completed"]
        holds = completed == submitted and await replicas_equal(cluster)
    results = []
    for what, values in (("accepted submission", accepted_ms), ("started job", started_ms)):
        figures = {
            "p50": f"{quantile(values, 0.5):.0f} ms",
            "max": f"{max(values):.0f} ms",
            "n": str(len(values)),
        }
        target = "p50 <= 300 ms, p99 <= 1 s"
        results.append(Result("P6", f"leader kill -9 to the next {what}", figures, target, holds))
    return results
