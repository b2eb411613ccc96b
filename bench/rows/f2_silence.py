"""F2: under load, the leader falls silent without its connections closing: it is paused (SIGSTOP),
or its network is gone (its port of the bridge is down; needs root). Time to the next commit.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

from bench.failover import SHOW_LOGS, Outage, Rig, result, under_load
from bench.harness import Result, Scale, replicas_equal
from chaos.live.processes import LocalCluster, NodeChild
from chaos.live.segment import Segment, is_possible

TARGET = "p99 <= 1.2 s"
SETTLE_S = (0.2, 0.8)
SILENT_S = (0.0, 1.5)  # how much longer than the others need
SECRET = {"QUORATE_CLUSTER_SECRET": "only for this measurement"}

Fault = Callable[[NodeChild], None]


async def measure(scale: Scale, folder: Path) -> list[Result]:
    count = max(scale.faults // 3, 2)
    rows = [await _paused(count, folder / "paused")]
    if is_possible():
        rows.append(await _cut_off(count, folder / "cut"))
    else:
        print("F2: no network namespaces here, so no leader was cut off", file=sys.stderr)
    return rows


async def _paused(count: int, folder: Path) -> Result:
    rng = Random(2)

    def pause(leader: NodeChild) -> None:
        leader.signal(signal.SIGSTOP)

    def resume(leader: NodeChild) -> None:
        leader.signal(signal.SIGCONT)

    async with LocalCluster(folder, flags=SHOW_LOGS) as cluster, under_load(cluster) as rig:
        outages = [await _silence(rig, rng, pause, resume) for _ in range(count)]
        holds = await rig.nothing_lost() and await replicas_equal(cluster)
    what = "leader paused (SIGSTOP) under load to the next commit"
    return result("F2", what, outages, TARGET, holds=holds)


async def _cut_off(count: int, folder: Path) -> Result:
    rng = Random(3)
    with Segment(3) as segment:

        def cut(leader: NodeChild) -> None:
            segment.cut_off(cluster.nodes.index(leader))

        def heal(leader: NodeChild) -> None:
            segment.heal()

        cluster = LocalCluster(folder, flags=SHOW_LOGS, env=SECRET, places=segment.places)
        async with cluster, under_load(cluster) as rig:
            outages = [await _silence(rig, rng, cut, heal) for _ in range(count)]
            holds = await rig.nothing_lost() and await replicas_equal(cluster)
    what = "leader's network gone under load to the next commit"
    return result("F2", what, outages, TARGET, holds=holds)


async def _silence(rig: Rig, rng: Random, begin: Fault, end: Fault) -> Outage:
    await rig.settled()
    await asyncio.sleep(rng.uniform(*SETTLE_S))
    leader = await rig.cluster.leader()
    try:
        outage = await rig.outage(lambda: begin(leader))
        await asyncio.sleep(rng.uniform(*SILENT_S))
    finally:
        end(leader)
    return outage
