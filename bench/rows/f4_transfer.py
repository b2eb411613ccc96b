"""F4: under load, leadership is handed over again and again, and by SIGTERM of the leader.

Measured: how long a transfer takes, and the longest time around it without any acknowledgement.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random
from typing import Any

from bench.failover import SHOW_LOGS, Rig, under_load
from bench.harness import Result, Scale, quantile, replicas_equal
from chaos.live.processes import LocalCluster

TARGET = "no failed transfer, nothing lost"
AROUND_S = 0.25


async def measure(scale: Scale, folder: Path) -> list[Result]:
    count = max(scale.faults // 2, 3)
    async with LocalCluster(folder, flags=SHOW_LOGS) as cluster, under_load(cluster) as rig:
        began_s, load_before = time.monotonic(), _acknowledged(rig)
        rows = [await _transfers(rig, count)]
        rate = (_acknowledged(rig) - load_before) / (time.monotonic() - began_s)
        rows[0].figures["submissions"] = f"{rate:.0f}/s"
        rows.append(await _terminations(rig, max(count // 5, 2)))
        holds = await rig.nothing_lost() and await replicas_equal(cluster)
        for row in rows:
            row.holds = holds
            row.figures["failed batches"] = str(rig.load.failed)
    return rows


def _acknowledged(rig: Rig) -> int:
    return len(rig.load.ids) + len(rig.probes.acknowledged)


async def _transfers(rig: Rig, count: int) -> Result:
    took_ms: list[float] = []
    silences_ms: list[float] = []
    failed: list[Any] = []
    for _ in range(count):
        _, before = await rig.leadership()
        begun_s = rig.probes.now_s()
        status, answer = await rig.cluster.request("POST", "/v1/cluster/transfer")
        took_ms.append((rig.probes.now_s() - begun_s) * 1000)
        await asyncio.sleep(AROUND_S)
        silences_ms.append(rig.probes.longest_silence_ms(begun_s, rig.probes.now_s()))
        _, after = await rig.leadership()
        if status != 200 or after == before:
            failed.append(answer)
    return _result("transfer", count, took_ms, silences_ms, failed)


async def _terminations(rig: Rig, count: int) -> Result:
    rng = Random(6)
    took_ms: list[float] = []
    silences_ms: list[float] = []
    failed: list[Any] = []
    for _ in range(count):
        await rig.settled()
        await asyncio.sleep(rng.uniform(0.2, 0.6))
        leader = await rig.cluster.leader()
        handed_over = leader.log_text().count("handed leadership")
        begun_s = rig.probes.now_s()
        code = await leader.stop()
        took_ms.append((rig.probes.now_s() - begun_s) * 1000)
        silences_ms.append(rig.probes.longest_silence_ms(begun_s, rig.probes.now_s()))
        if code != 0 or leader.log_text().count("handed leadership") == handed_over:
            failed.append(code)
        await leader.start()
    return _result("SIGTERM of the leader", count, took_ms, silences_ms, failed)


def _result(
    what: str, count: int, took_ms: list[float], silences_ms: list[float], failed: list[Any]
) -> Result:
    figures = {
        "took p50": f"{quantile(took_ms, 0.5):.0f} ms",
        "max": f"{max(took_ms):.0f} ms",
        "without an acknowledgement p50": f"{quantile(silences_ms, 0.5):.0f} ms",
        "p99": f"{quantile(silences_ms, 0.99):.0f} ms",
        "max ": f"{max(silences_ms):.0f} ms",
        "n": str(count),
        "failed": f"{len(failed)} {failed[:3] if failed else ''}".strip(),
    }
    return Result("F4", f"{what} under load", figures, TARGET)
