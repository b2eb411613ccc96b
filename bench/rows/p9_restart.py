"""P9: restart of a node with many pending jobs, from start of the process to ready."""

from __future__ import annotations

import time
from pathlib import Path

import aiohttp

from bench.harness import QUIET, Result, Scale, batch_body, by_status, post_batch, replicas_equal
from chaos.live.processes import LocalCluster

BATCH = 1_000


async def measure(scale: Scale, folder: Path) -> list[Result]:
    async with LocalCluster(folder, flags=QUIET) as cluster:
        results = [await _restart(cluster, "P9", scale.restart_jobs, scale.restart_jobs)]
        if scale.many_jobs:
            more = scale.many_jobs - scale.restart_jobs
            results.append(await _restart(cluster, "P9L", more, scale.many_jobs))
    return results


async def _restart(cluster: LocalCluster, row: str, more: int, jobs: int) -> Result:
    """With `more` jobs than before, which makes `jobs`."""
    leader = await cluster.leader()
    body = batch_body(BATCH, "noop")
    async with aiohttp.ClientSession() as session:
        for _ in range(more // BATCH):
            await post_batch(session, leader.url, body)
    follower = next(node for node in cluster.nodes if node is not leader)
    await follower.kill()
    started = time.perf_counter()
    await follower.start()
    await cluster.ready(120)
    seconds = time.perf_counter() - started
    pending = (await by_status(cluster))["pending"]
    holds = pending == jobs and await replicas_equal(cluster)
    figures = {"ready after": f"{seconds:.2f} s"}
    what = f"restart of a node with {jobs:,} jobs"
    return Result(row, what, figures, "<= 5 s at 1,000,000", holds)
