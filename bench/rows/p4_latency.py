"""P4: submit to start at 200 jobs/s: from before the POST to the first line of the task.

Beside it, in the same run and at the same pace, the answers of a bare aiohttp server: what one hop
of the four that a job takes (client, leader, a follower and back, worker) costs on this machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp

from bench.harness import QUIET, Result, Scale, bare_echo, job_json, summary_ms
from bench.usage import usage_of
from chaos.live.processes import LocalCluster

RATE = 200
WARM_UP_JOBS = 100
HEADERS = {"Content-Type": "application/json"}


async def measure(scale: Scale, folder: Path) -> list[Result]:
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        LocalCluster(folder, flags=QUIET) as cluster,
        bare_echo(cluster, folder) as echo,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        worker = await cluster.worker("w1", "bench.tasks:app", slots=100)
        leader = await cluster.leader()
        followers = [node.pid for node in cluster.nodes if node is not leader]
        pids = {"leader": [leader.pid], "followers": followers, "worker": [worker.pid]}
        body = job_json("stamp")
        sent_at: dict[str, float] = {}
        echoes_ms: list[float] = []

        async def submit() -> None:
            before = time.time()
            async with session.post(f"{leader.url}/v1/jobs", data=body, headers=HEADERS) as answer:
                sent_at[(await answer.json())["job_id"]] = before

        async def ask() -> None:
            before = time.perf_counter()
            async with session.post(echo, data=body, headers=HEADERS) as answer:
                await answer.read()
            echoes_ms.append((time.perf_counter() - before) * 1000)

        count = int(scale.latency_seconds * RATE)
        await _paced(ask, WARM_UP_JOBS)
        echoes_ms.clear()
        await _paced(ask, count // 2)
        await _paced(submit, WARM_UP_JOBS)
        before = _cpu_s(pids)
        await _paced(submit, count)
        after = _cpu_s(pids)
        await _paced(ask, count - count // 2)
        outputs = {}
        for job_id in sent_at:
            job = await cluster.get(f"/v1/jobs/{job_id}?wait=10", leader)
            outputs[job_id] = job["output"]
    latencies = [(outputs[i] - sent_at[i]) * 1000 for i in list(sent_at)[WARM_UP_JOBS:]]
    holds = len(outputs) == count + WARM_UP_JOBS
    holds = holds and all(isinstance(v, float) for v in outputs.values())
    cpu = ", ".join(f"{role} {(after[role] - before[role]) / count * 1e6:,.0f}" for role in pids)
    bare = summary_ms(echoes_ms)
    figures = {
        **summary_ms(latencies),
        "bare echo": f"p50 {bare['p50']}, p99 {bare['p99']}",
        "cpu of nodes and worker": f"{cpu} us a job",
    }
    return [
        Result("P4", f"submit to start at {RATE}/s", figures, "p50 <= 2 ms, p99 <= 6 ms", holds)
    ]


async def _paced(act: Callable[[], Coroutine[Any, Any, None]], count: int) -> None:
    """Does it `count` times, RATE times a second, whether the one before has ended or not."""
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(start + number / RATE - time.perf_counter(), 0))
            group.create_task(act())


def _cpu_s(pids: dict[str, list[int]]) -> dict[str, float]:
    return {role: sum(usage_of(pid).cpu_s for pid in each) for role, each in pids.items()}
