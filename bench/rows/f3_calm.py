"""F3: under load, trouble of a follower must not change who leads: the term stays what it was.

A stall of 200 ms, a restart after kill -9 and after SIGTERM, a partition and the return from it, a
link that is cut between leader and one follower only (the last two need root).
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

from bench.failover import SHOW_LOGS, Rig, under_load
from bench.harness import Result, Scale, replicas_equal
from bench.rows.f2_silence import SECRET
from chaos.live.processes import LocalCluster, NodeChild
from chaos.live.segment import Segment, is_possible

TARGET = "0 changes"
STALL_S = 0.2
Trouble = Callable[[NodeChild], Awaitable[None]]


async def measure(scale: Scale, folder: Path) -> list[Result]:
    few = max(scale.faults // 10, 2)
    rows = []
    async with LocalCluster(folder / "a", flags=SHOW_LOGS) as cluster, under_load(cluster) as rig:
        rng = Random(4)
        rows.append(await _calm(rig, rng, scale.faults, "follower stalls for 200 ms", _stall))
        rows.append(await _calm(rig, rng, few, "follower restarts, kill -9", _kill))
        rows.append(await _calm(rig, rng, few, "follower restarts, SIGTERM", _terminate))
        await _conclude(rig, cluster, rows)
    if is_possible():
        rows += await _partitions(scale, folder / "b")
    else:
        print("F3: no network namespaces here, so nothing was partitioned", file=sys.stderr)
    return rows


async def _stall(node: NodeChild) -> None:
    node.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(STALL_S)
    finally:
        node.signal(signal.SIGCONT)


async def _kill(node: NodeChild) -> None:
    await node.kill()
    await node.start()


async def _terminate(node: NodeChild) -> None:
    await node.stop()
    await node.start()


async def _partitions(scale: Scale, folder: Path) -> list[Result]:
    rng, seconds = Random(5), scale.partition_s
    times = 3 if seconds >= 60 else 1
    rows = []
    with Segment(3) as segment:

        async def cut_off(node: NodeChild) -> None:
            segment.cut_off(cluster.nodes.index(node))
            await asyncio.sleep(seconds)
            segment.heal()

        async def cut_from_leader(node: NodeChild) -> None:
            leader = await cluster.leader()
            segment.cut_between([cluster.nodes.index(node), cluster.nodes.index(leader)])
            await asyncio.sleep(seconds / 2)
            segment.heal()

        cluster = LocalCluster(folder, flags=SHOW_LOGS, env=SECRET, places=segment.places)
        async with cluster, under_load(cluster) as rig:
            what = f"follower cut off for {seconds:g} s rejoins"
            rows.append(await _calm(rig, rng, times, what, cut_off))
            what = f"link between leader and one follower cut for {seconds / 2:g} s"
            rows.append(await _calm(rig, rng, times, what, cut_from_leader))
            await _conclude(rig, cluster, rows)
    return rows


async def _calm(rig: Rig, rng: Random, count: int, what: str, trouble: Trouble) -> Result:
    changes = 0
    silences_ms: list[float] = []
    back_ms: list[float] = []
    for _ in range(count):
        await rig.settled()
        before = await rig.leadership()
        leader = await rig.cluster.leader()
        victim = rng.choice([node for node in rig.cluster.nodes if node is not leader])
        begun_s = rig.probes.now_s()
        await trouble(victim)
        over_s = rig.probes.now_s()
        await asyncio.sleep(rng.uniform(0.3, 0.6))
        silences_ms.append(rig.probes.longest_silence_ms(begun_s, rig.probes.now_s()))
        await rig.settled()
        back_ms.append((rig.probes.now_s() - over_s) * 1000)
        changes += await rig.leadership() != before
    figures = {
        "changes of leader or term": str(changes),
        "n": str(count),
        "longest time without an acknowledgement": f"{max(silences_ms):.0f} ms",
        "level again after at most": f"{max(back_ms) / 1000:.1f} s",
    }
    return Result("F3", f"{what}, under load", figures, TARGET)


async def _conclude(rig: Rig, cluster: LocalCluster, rows: list[Result]) -> None:
    holds = await rig.nothing_lost() and await replicas_equal(cluster)
    for row in rows:
        row.holds = row.holds and holds
