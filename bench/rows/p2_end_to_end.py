"""P2: submit, dispatch, run a no-op, complete; one worker process, three fsync'd replicas."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp

from bench.harness import (
    QUIET,
    Result,
    Scale,
    batch_body,
    by_status,
    cpu_seconds,
    post_batch,
    replicas_equal,
    rss_mb,
)  # fmt: skip
from chaos.live.processes import LocalCluster

BATCH = 1_000
CLIENTS = 2
AHEAD_JOBS = 20_000  # how far submission may run ahead of completion


async def measure(scale: Scale, folder: Path) -> list[Result]:
    async with LocalCluster(folder, flags=QUIET) as cluster, aiohttp.ClientSession() as session:
        await cluster.worker("w1", "bench.tasks:app", slots=2_000)
        leader = await cluster.leader()
        body = batch_body(BATCH, "noop")
        total, sent, done = scale.end_to_end, 0, 0

        async def client() -> None:
            nonlocal sent
            while sent < total:
                if sent - done > AHEAD_JOBS:
                    await asyncio.sleep(0.005)
                    continue
                sent += BATCH
                await post_batch(session, leader.url, body)

        async def watch() -> None:
            nonlocal done
            while done < total:
                done = (await by_status(cluster))["completed"]
                await asyncio.sleep(0.02)

        cpu, started = cpu_seconds(cluster), time.perf_counter()
        async with asyncio.timeout(300):
            await asyncio.gather(watch(), *(client() for _ in range(CLIENTS)))
        seconds = time.perf_counter() - started
        cpu = cpu_seconds(cluster) - cpu
        counts = await by_status(cluster)
        holds = counts["completed"] == total and counts["pending"] == counts["running"] == 0
        holds = holds and await replicas_equal(cluster)
        memory = rss_mb(cluster)
    figures = {
        "rate": f"{total / seconds:,.0f} jobs/s",
        "cpu": f"{cpu / total * 10_000:.2f} s per 10,000 jobs",
        "node RSS": f"{max(memory)} MiB",
    }
    return [Result("P2", "end to end, no-op, one worker", figures, ">= 50,000 jobs/s", holds)]
