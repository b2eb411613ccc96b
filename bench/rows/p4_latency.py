"""P4: submit to start at 200 jobs/s: from before the POST to the first line of the task."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp

from bench.harness import QUIET, Result, Scale, job_json, summary_ms
from chaos.live.processes import LocalCluster

RATE = 200
WARM_UP_JOBS = 100


async def measure(scale: Scale, folder: Path) -> list[Result]:
    async with LocalCluster(folder, flags=QUIET) as cluster, aiohttp.ClientSession() as session:
        await cluster.worker("w1", "bench.tasks:app", slots=100)
        leader = await cluster.leader()
        body = job_json("stamp")
        sent_at: dict[str, float] = {}

        async def submit() -> None:
            before = time.time()
            headers = {"Content-Type": "application/json"}
            async with session.post(f"{leader.url}/v1/jobs", data=body, headers=headers) as answer:
                sent_at[(await answer.json())["job_id"]] = before

        count = int(scale.latency_seconds * RATE) + WARM_UP_JOBS
        start = time.perf_counter()
        tasks = []
        for number in range(count):
            await asyncio.sleep(max(start + number / RATE - time.perf_counter(), 0))
            tasks.append(asyncio.create_task(submit()))
        await asyncio.gather(*tasks)
        outputs = {}
        for job_id in sent_at:
            job = await cluster.get(f"/v1/jobs/{job_id}?wait=10", leader)
            outputs[job_id] = job["output"]
    latencies = [(outputs[i] - sent_at[i]) * 1000 for i in list(sent_at)[WARM_UP_JOBS:]]
    holds = len(outputs) == count and all(isinstance(v, float) for v in outputs.values())
    target = "p50 <= 2 ms, p99 <= 6 ms"
    return [Result("P4", f"submit to start at {RATE}/s", summary_ms(latencies), target, holds)]
