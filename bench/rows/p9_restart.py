"""P9: restart of a node with many pending jobs, from start of the process to ready."""

from __future__ import annotations

import time
from pathlib import Path

import aiohttp

from bench.harness import QUIET, Result, Scale, batch_body, by_status, post_batch, replicas_equal
from chaos.live.processes import LocalCluster

BATCH = 1_000


async def measure(scale: Scale, folder: Path) -> list[Result]:
    async with LocalCluster(folder, flags=QUIET) as cluster, aiohttp.ClientSession() as session:
        leader = await cluster.leader()
        body = batch_body(BATCH, "noop")
        for _ in range(scale.restart_jobs // BATCH):
            await post_batch(session, leader.url, body)
        follower = next(node for node in cluster.nodes if node is not leader)
        await follower.kill()
        started = time.perf_counter()
        await follower.start()
        await cluster.ready(120)
        seconds = time.perf_counter() - started
        pending = (await by_status(cluster))["pending"]
        holds = pending == scale.restart_jobs and await replicas_equal(cluster)
    figures = {"ready after": f"{seconds:.2f} s"}
    what = f"restart of a node with {scale.restart_jobs:,} jobs"
    return [Result("P9", what, figures, "<= 5 s at 1,000,000", holds)]
