"""L: submit to start of single jobs, as P4, while batches of other jobs come in all the time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp

from bench.flow import SLOTS
from bench.harness import (
    QUIET,
    Result,
    Scale,
    batch_body,
    by_status,
    job_json,
    post_batch,
    summary_ms,
)
from bench.probe import probed
from chaos.live.processes import LocalCluster, NodeChild

SINGLES_PER_S = 200
BATCHES_PER_S = 50
LOADS_PER_S = (2_000, 10_000)
TARGET = "compare with P4"


async def measure(scale: Scale, folder: Path) -> list[Result]:
    results = []
    for per_s in LOADS_PER_S:
        async with LocalCluster(folder / str(per_s), flags=QUIET) as cluster:
            await cluster.worker("w1", "bench.tasks:app", slots=SLOTS)
            results.append(await _beside(cluster, per_s, scale.latency_seconds))
    return results


async def _beside(cluster: LocalCluster, per_s: int, seconds: float) -> Result:
    leader = await cluster.leader()
    connector = aiohttp.TCPConnector(limit=0)
    async with probed(leader.url) as answers, aiohttp.ClientSession(connector=connector) as session:
        loading = asyncio.create_task(load(session, leader, per_s // BATCHES_PER_S))
        await asyncio.sleep(1.0)  # until it flows
        sent_at = await _singles(session, leader, int(seconds * SINGLES_PER_S))
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        starts = {
            job_id: (await cluster.get(f"/v1/jobs/{job_id}?wait=10", leader))["output"]
            for job_id in sent_at
        }
    latencies = [(starts[job_id] - at) * 1000 for job_id, at in sent_at.items()]
    counts = await by_status(cluster)
    holds = len(starts) == int(seconds * SINGLES_PER_S) and counts["failed"] == 0
    figures = {**summary_ms(latencies), "longest /livez": f"{answers.at_ms(100):.1f} ms"}
    what = (
        f"submit to start at {SINGLES_PER_S}/s beside {per_s:,} jobs/s in {BATCHES_PER_S} batches"
    )
    return Result("L", what, figures, TARGET, holds)


async def load(session: aiohttp.ClientSession, leader: NodeChild, jobs: int) -> None:
    """Batches at a steady rate, whether they are answered or not, until it is cancelled."""
    body, started, sent = batch_body(jobs, "noop"), time.perf_counter(), 0
    async with asyncio.TaskGroup() as group:
        while True:
            sent += 1
            group.create_task(post_batch(session, leader.url, body))
            await asyncio.sleep(max(started + sent / BATCHES_PER_S - time.perf_counter(), 0))


async def _singles(
    session: aiohttp.ClientSession, leader: NodeChild, count: int
) -> dict[str, float]:
    """When each was sent, by id."""
    sent_at: dict[str, float] = {}
    body, headers = job_json("stamp"), {"Content-Type": "application/json"}

    async def submit() -> None:
        before = time.time()
        async with session.post(f"{leader.url}/v1/jobs", data=body, headers=headers) as answer:
            sent_at[(await answer.json())["job_id"]] = before

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(started + number / SINGLES_PER_S - time.perf_counter(), 0))
            group.create_task(submit())
    return sent_at
