"""P5: due to start while many timers are pending."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import aiohttp

from bench.harness import QUIET, Result, Scale, batch_body, job_json, post_batch, rss_mb, summary_ms
from chaos.live.processes import LocalCluster

BATCH = 1_000
PROBES = 300
FAR_SECONDS = 86_400


async def measure(scale: Scale, folder: Path) -> list[Result]:
    async with LocalCluster(folder, flags=QUIET) as cluster, aiohttp.ClientSession() as session:
        await cluster.worker("w1", "bench.tasks:app", slots=100)
        leader = await cluster.leader()
        for number in range(scale.timers // BATCH):
            delay = f',"delay_seconds":{FAR_SECONDS + number}'
            await post_batch(session, leader.url, batch_body(BATCH, "noop", 100, delay))
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
        memory = rss_mb(cluster)
        pending = (await cluster.get("/v1/stats"))["jobs_by_status"]["pending"]
    figures = {**summary_ms(late), "node RSS": f"{max(memory)} MiB"}
    holds = pending == scale.timers // BATCH * BATCH and min(late) >= -1
    what = f"due to start, {scale.timers:,} timers pending"
    return [Result("P5", what, figures, "p99 <= 25 ms", holds)]
