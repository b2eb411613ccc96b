"""P5: due to start while many timers are pending, alone and beside other jobs."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from bench.flow import SLOTS
from bench.harness import QUIET, Result, Scale, batch_body, job_json, post_batch, rss_mb, summary_ms
from bench.rows.l_loaded import BATCHES_PER_S, load
from chaos.live.processes import LocalCluster, NodeChild

BATCH = 1_000
PROBES = 300
FAR_SECONDS = 86_400
LOAD_PER_S = 2_000


async def measure(scale: Scale, folder: Path) -> list[Result]:
    async with LocalCluster(folder, flags=QUIET) as cluster, aiohttp.ClientSession() as session:
        await cluster.worker("w1", "bench.tasks:app", slots=SLOTS)
        leader = await cluster.leader()
        for number in range(scale.timers // BATCH):
            delay = f',"delay_seconds":{FAR_SECONDS + number}'
            await post_batch(session, leader.url, batch_body(BATCH, "noop", 100, delay))
        alone = await _late_ms(cluster, session, leader)
        loading = asyncio.create_task(load(session, leader, LOAD_PER_S // BATCHES_PER_S))
        loaded = await _late_ms(cluster, session, leader)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        memory = {"node RSS": f"{max(rss_mb(cluster))} MiB"}

        async def rests() -> bool:
            stats: Any = await cluster.get("/v1/stats")
            counts = stats["jobs_by_status"]
            return bool(counts["running"] == 0 and counts["pending"] == pending)

        pending = scale.timers // BATCH * BATCH
        await cluster.until(rests, "only the timers to be left", 60)
    return [
        _result("P5", f"{pending:,} timers pending", alone, memory),
        _result("P5L", f"{pending:,} timers pending, {LOAD_PER_S:,} jobs/s beside", loaded, {}),
    ]


async def _late_ms(
    cluster: LocalCluster, session: aiohttp.ClientSession, leader: NodeChild
) -> list[float]:
    """How much later than due each probe started."""
    ids = []
    for number in range(PROBES):
        delay = f',"delay_seconds":{1 + number * 0.01:.3f}'
        body = job_json("stamp", 100, delay)
        headers = {"Content-Type": "application/json"}
        async with session.post(f"{leader.url}/v1/jobs", data=body, headers=headers) as answer:
            ids.append((await answer.json())["job_id"])
    late = []
    for job_id in ids:
        job = await cluster.get(f"/v1/jobs/{job_id}?wait=20", leader)
        due = datetime.fromisoformat(job["scheduled_at"]).timestamp()
        late.append((job["output"] - due) * 1000)
    return late


def _result(row: str, beside: str, late: list[float], more: dict[str, str]) -> Result:
    figures = {**summary_ms(late), **more}
    return Result(row, f"due to start, {beside}", figures, "p99 <= 25 ms", min(late) >= -1)
