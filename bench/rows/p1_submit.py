"""P1: durable submissions through HTTP in batches of 1,000, three fsync'd replicas."""

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
)  # fmt: skip
from chaos.live.processes import LocalCluster

BATCH = 1_000
CLIENTS = 4


async def measure(scale: Scale, folder: Path) -> list[Result]:
    async with LocalCluster(folder, flags=QUIET) as cluster, aiohttp.ClientSession() as session:
        leader = await cluster.leader()
        body = batch_body(BATCH, "noop")
        await post_batch(session, leader.url, body)
        left = scale.submissions // BATCH

        async def client() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await post_batch(session, leader.url, body)

        cpu, started = cpu_seconds(cluster), time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        seconds = time.perf_counter() - started
        cpu = cpu_seconds(cluster) - cpu
        pending = (await by_status(cluster))["pending"]
        holds = pending == scale.submissions + BATCH and await replicas_equal(cluster)
    figures = {
        "rate": f"{scale.submissions / seconds:,.0f} jobs/s",
        "cpu": f"{cpu / scale.submissions * 10_000:.2f} s per 10,000 jobs",
    }
    return [Result("P1", f"submit, batches of {BATCH}, 100 B", figures, ">= 150,000 jobs/s", holds)]
