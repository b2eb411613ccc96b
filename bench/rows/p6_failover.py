"""P6: the leader is killed with -9; time to the next accepted submission and the next start.

Measured on an empty cluster and again with many delayed jobs pending.
"""

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
    post_batch,
    quantile,
    replicas_equal,
)
from chaos.live.processes import LocalCluster
from quorate import Client

SETTLE_S = 1.0
BATCH = 1_000
ROOM = 100_000  # below what a queue takes by default
FAR_DELAY = ',"delay_seconds":86400'


async def measure(scale: Scale, folder: Path) -> list[Result]:
    async with LocalCluster(folder, flags=QUIET) as cluster, Client(cluster.urls) as client:
        await cluster.worker("w1", "bench.tasks:app", slots=100)
        results = await _kill_leaders("P6", cluster, client, scale.kills, 0, 0)
        await _fill(cluster, scale.restart_jobs)
        done = 2 * scale.kills
        results += await _kill_leaders("P6", cluster, client, scale.kills, scale.restart_jobs, done)
        if scale.many_jobs:
            many = scale.many_jobs - ROOM
            await _fill(cluster, many - scale.restart_jobs)
            done += 2 * scale.kills
            results += await _kill_leaders("P6L", cluster, client, scale.kills, many, done)
    return results


async def _fill(cluster: LocalCluster, jobs: int) -> None:
    leader = await cluster.leader()
    body = batch_body(BATCH, "noop", 100, FAR_DELAY)
    async with aiohttp.ClientSession() as session:
        for _ in range(jobs // BATCH):
            await post_batch(session, leader.url, body)


async def _kill_leaders(
    row: str, cluster: LocalCluster, client: Client, kills: int, pending: int, done: int
) -> list[Result]:
    """`done`: jobs that have completed before."""
    accepted_ms, started_ms = [], []
    for _ in range(kills):
        await asyncio.sleep(SETTLE_S)
        leader = await cluster.leader()
        await (await client.submit("stamp", "warm")).result(20)
        killed = time.time()
        await leader.kill()
        handle = await client.submit("stamp", "after")
        accepted_ms.append((time.time() - killed) * 1000)
        started_ms.append((await handle.result(20) - killed) * 1000)
        await leader.start()
        await cluster.ready(120)
    counts = await by_status(cluster)
    holds = counts["completed"] == done + 2 * kills and counts["pending"] == pending
    holds = holds and await replicas_equal(cluster)
    return [
        _result(row, "accepted submission", accepted_ms, pending, holds),
        _result(row, "started job", started_ms, pending, holds),
    ]


def _result(row: str, what: str, values: list[float], pending: int, holds: bool) -> Result:
    figures = {
        "p50": f"{quantile(values, 0.5):.0f} ms",
        "p90": f"{quantile(values, 0.9):.0f} ms",
        "max": f"{max(values):.0f} ms",
        "n": str(len(values)),
    }
    title = f"leader kill -9 to the next {what}, {pending:,} jobs pending"
    return Result(row, title, figures, "p50 <= 300 ms, p99 <= 1 s", holds)
