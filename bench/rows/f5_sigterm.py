"""F5: under 500 jobs/s the leader is stopped by SIGTERM, again and again; at last all at once.

Measured: the longest time without an accepted submission from the signal until a while after the
process has ended, and as long without any signal, which is what machine and load do by themselves;
and by the nodes' own logs, from the signal until the next leader's epoch was open.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

from bench.failover import SHOW_LOGS, Rig, epochs, under_load
from bench.harness import Result, Scale, quantile, replicas_equal
from chaos.live.processes import LocalCluster, NodeChild

TARGET = "<= 100 ms p99 without an accepted submission"
BATCHES_PER_S = 10  # of 50 jobs; the probes come on top
HANDOVERS_MIN = 30
AFTER_S = 0.25
HANDED_OVER = "handed leadership to"


async def measure(scale: Scale, folder: Path) -> list[Result]:
    count = max(scale.faults // 3, HANDOVERS_MIN)
    async with LocalCluster(folder, flags=SHOW_LOGS) as cluster:
        async with under_load(cluster, BATCHES_PER_S) as rig:
            row = await _handovers(rig, count)
            row.holds = await rig.nothing_lost() and await replicas_equal(cluster)
        return [row, await _all_at_once(cluster)]


async def _handovers(rig: Rig, count: int) -> Result:
    rng = Random(7)
    gaps_ms: list[float] = []
    quiet_ms: list[float] = []
    took_ms: list[float] = []
    open_ms: list[float] = []
    failed: list[Any] = []
    began_s, before = rig.probes.now_s(), _accepted(rig)
    for _ in range(count):
        await rig.settled()
        await asyncio.sleep(rng.uniform(0.2, 0.6))
        leader = await rig.cluster.leader()
        handed_over = leader.log_text().count(HANDED_OVER)
        begun_s = rig.probes.now_s()
        code = await leader.stop()
        took_ms.append((rig.probes.now_s() - begun_s) * 1000)
        await asyncio.sleep(AFTER_S)
        until_s = rig.probes.now_s()
        gaps_ms.append(rig.probes.longest_silence_ms(begun_s, until_s))
        open_ms += _next_epoch_ms(rig, begun_s)
        if code != 0 or leader.log_text().count(HANDED_OVER) == handed_over:
            failed.append(code)
        await leader.start()
        await rig.settled()
        quiet_s = rig.probes.now_s()
        await asyncio.sleep(until_s - begun_s)
        quiet_ms.append(rig.probes.longest_silence_ms(quiet_s, rig.probes.now_s()))
    rate = (_accepted(rig) - before) / (rig.probes.now_s() - began_s)
    figures = {
        "gap p50": f"{quantile(gaps_ms, 0.5):.0f} ms",
        "p99": f"{quantile(gaps_ms, 0.99):.0f} ms",
        "n": str(count),
        "to the next epoch p50": f"{quantile(open_ms, 0.5):.0f} ms",
        "p99 ": f"{quantile(open_ms, 0.99):.0f} ms",
        "without a signal p50": f"{quantile(quiet_ms, 0.5):.0f} ms",
        "p99  ": f"{quantile(quiet_ms, 0.99):.0f} ms",
        "exit after p50": f"{quantile(took_ms, 0.5):.0f} ms",
        "max": f"{max(took_ms):.0f} ms",
        "accepted": f"{rate:.0f} jobs/s",
        "not handed over": str(len(failed)),
        "failed batches": str(rig.load.failed),
    }
    return Result("F5", "SIGTERM of the leader", figures, TARGET)


def _next_epoch_ms(rig: Rig, since_s: float) -> list[float]:
    """From then to the first epoch that was opened afterwards, by the nodes' logs."""
    opened = [at_s for node in rig.cluster.nodes for _, at_s in epochs(node) if at_s > since_s]
    return [(min(opened) - since_s) * 1000] if opened else []


def _accepted(rig: Rig) -> int:
    return len(rig.load.ids) + len(rig.probes.acknowledged)


async def _all_at_once(cluster: LocalCluster) -> Result:
    """Nobody is left to take over; the worker loses all of them."""
    clock = asyncio.get_running_loop()
    began_s = clock.time()

    async def end(node: NodeChild) -> tuple[int, float]:
        return await node.stop(), clock.time() - began_s

    ended = await asyncio.gather(*(end(node) for node in cluster.nodes))
    codes = [code for code, _ in ended]
    figures = {"last exit after": f"{max(took_s for _, took_s in ended) * 1000:.0f} ms"}
    holds = codes == [0] * len(codes)
    return Result("F5", "SIGTERM of all nodes at once", figures, "all exit 0", holds)
