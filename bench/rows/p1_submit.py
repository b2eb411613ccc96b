"""P1: durable submissions through HTTP in batches of 1,000, three fsync'd replicas."""

from __future__ import annotations

from pathlib import Path

from bench.flow import Load, submission
from bench.harness import QUIET, Result, Scale
from chaos.live.processes import LocalCluster

BATCH = 1_000
CLIENTS = 4
TARGET = ">= 150,000 jobs/s"


async def measure(scale: Scale, folder: Path) -> list[Result]:
    async with LocalCluster(folder, flags=QUIET) as cluster:
        flow = await submission(cluster, Load(scale.submissions, BATCH, clients=CLIENTS))
    figures = {
        "rate": f"{flow.rate:,.0f} jobs/s",
        **flow.cost(),
        **flow.posts.summary("p50", "p99", "max"),
        **{name: flow.per_job()[name] for name in ("log", "snapshots", "leader's longest stall")},
    }
    return [Result("P1", f"submit, batches of {BATCH}, 100 B", figures, TARGET, flow.holds)]
