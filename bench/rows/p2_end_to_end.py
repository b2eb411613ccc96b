"""P2: submit, dispatch, run a no-op, complete; one worker process, three fsync'd replicas."""

from __future__ import annotations

from pathlib import Path

from bench.flow import SLOTS, Load, end_to_end
from bench.harness import QUIET, Result, Scale
from chaos.live.processes import LocalCluster

TARGET = ">= 50,000 jobs/s"


async def measure(scale: Scale, folder: Path) -> list[Result]:
    async with LocalCluster(folder, flags=QUIET) as cluster:
        await cluster.worker("w1", "bench.tasks:app", slots=SLOTS)
        flow = await end_to_end(cluster, Load(scale.end_to_end))
    figures = {
        "rate": f"{flow.rate:,.0f} jobs/s",
        **flow.cost(),
        "POST p50": f"{flow.posts.at_ms(50):.1f} ms",
        "p99": f"{flow.posts.at_ms(99):.1f} ms",
        **flow.per_job(),
    }
    return [Result("P2", "end to end, no-op, one worker", figures, TARGET, flow.holds)]
