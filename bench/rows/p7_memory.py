"""P7: memory of a node per pending job with a payload of 100 bytes, as the kernel counts it.

With everything that comes along: ready queues, the end of the log that followers may still need,
what the allocator keeps for itself.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.flow import Load, submission
from bench.harness import QUIET, Result, Scale
from bench.usage import rss_bytes
from chaos.live.processes import LocalCluster

SETTLE_S = 2.0  # until a snapshot that was due has been taken


async def measure(scale: Scale, folder: Path) -> list[Result]:
    jobs = scale.restart_jobs
    async with LocalCluster(folder, flags=QUIET) as cluster:
        await submission(cluster, Load(10_000))
        before = [rss_bytes(node.pid) for node in cluster.nodes]
        flow = await submission(cluster, Load(jobs, is_varied=True))
        await asyncio.sleep(SETTLE_S)
        after = [rss_bytes(node.pid) for node in cluster.nodes]
    grown = [(late - early) / jobs for late, early in zip(after, before, strict=True)]
    figures = {
        "most": f"{max(grown):.0f} B a job",
        "each node": ", ".join(f"{each:.0f}" for each in grown),
        "node RSS": f"{max(after) >> 20} MiB",
        **{name: flow.per_job()[name] for name in ("snapshots", "leader's longest stall")},
    }
    what = f"memory per pending job, {jobs:,} of 100 B"
    return [Result("P7", what, figures, "<= 300 B a node", flow.holds)]
