"""F1: under load, the leader's process is killed with -9; time to the next commit."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from random import Random

from bench.failover import SHOW_LOGS, Outage, Rig, result, under_load
from bench.harness import Result, Scale, replicas_equal
from chaos.live.processes import LocalCluster

TARGET = "p50 <= 150 ms, p99 <= 500 ms"
SETTLE_S = (0.2, 0.8)  # random, so that the kill meets the heartbeats at any phase


async def measure(scale: Scale, folder: Path) -> list[Result]:
    rng = Random(1)
    async with LocalCluster(folder, flags=SHOW_LOGS) as cluster, under_load(cluster) as rig:
        outages = [await _kill(rig, rng) for _ in range(scale.faults)]
        holds = await rig.nothing_lost() and await replicas_equal(cluster)
    return [
        result("F1", "leader kill -9 under load to the next commit", outages, TARGET, holds=holds)
    ]


async def _kill(rig: Rig, rng: Random) -> Outage:
    await rig.settled()
    await asyncio.sleep(rng.uniform(*SETTLE_S))
    leader = await rig.cluster.leader()
    outage = await rig.outage(lambda: leader.signal(signal.SIGKILL))
    await leader.wait()
    await leader.start()
    return outage
