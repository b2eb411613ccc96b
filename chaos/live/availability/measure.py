"""One fault, again and again, on a cluster under load."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random

import aiohttp

from chaos.live.asking import Asker
from chaos.live.availability.figures import Measured, Outage, outcome, silence_ms
from chaos.live.availability.ills import Ill
from chaos.live.availability.load import Load
from chaos.live.chaos_tasks import FILE_VARIABLE
from chaos.live.evidence import read_runs
from chaos.live.harm import Field
from chaos.live.judge.history import Run
from chaos.live.processes import NODE, ROOT, LocalCluster
from chaos.live.runner import PROGRAM, TASKS, owner
from chaos.live.wires import Wires
from cluster.api.forwarding import once

# As shipped, but for snapshots so small that a killed node is back soon.
FLAGS = ["--snapshot-journal-mb", "2"]
SLOTS = 50
PATIENCE_S = 90.0
QUIET_S = (0.3, 0.9)  # before a fault: so it meets the heartbeats at any phase
PROGRESS = 20  # submissions after a fault before it counts as over
LAG_ENTRIES = 200
WAITING_JOBS = 200


class Rig:
    """A cluster, its load, and one fault."""

    def __init__(
        self, field: Field, load: Load, ill: Ill, waiting_jobs: int = WAITING_JOBS
    ) -> None:
        """`waiting_jobs`: fewer than so many wait or run when all is well."""
        self._field = field
        self._cluster = field.cluster
        self._load = load
        self._ill = ill
        self._waiting_jobs = waiting_jobs
        self.windows_s: list[tuple[float, float]] = []

    async def strike(self) -> None:
        """Once: from calm to calm."""
        await self.calm()
        await asyncio.sleep(self._field.rng.uniform(*QUIET_S))
        from_s = time.monotonic()
        await self._ill.strike(self._field, self._ill.seconds)
        accepted = len(self._load.accepted_s)

        async def progress() -> bool:
            self._load.check()
            return len(self._load.accepted_s) >= accepted + PROGRESS

        await self._cluster.until(progress, "submissions to be accepted", PATIENCE_S)
        await self.calm()
        self.windows_s.append((from_s, time.monotonic()))

    async def calm(self) -> None:
        """All nodes are ready and follow closely, and nothing waits for long."""
        await self._cluster.ready(PATIENCE_S)

        async def level() -> bool:
            members = (await self._cluster.get("/v1/cluster"))["members"]
            indexes = [member["match_index"] for member in members]
            if None in indexes:  # of a follower's view
                leader = await self._cluster.leader()
                status = await self._cluster.get("/v1/cluster", leader)
                indexes = [member["match_index"] or 0 for member in status["members"]]
            return max(indexes) - min(indexes) < LAG_ENTRIES

        await self._cluster.until(level, "all nodes to follow closely", PATIENCE_S)

        async def served() -> bool:
            counts = (await self._cluster.get("/v1/stats"))["jobs_by_status"]
            return bool(counts["pending"] + counts["running"] < self._waiting_jobs)

        await self._cluster.until(served, "few jobs to wait", PATIENCE_S)

    async def finished(self) -> int:
        """Ends the load; how many jobs the cluster has completed once nothing is left."""
        await self._load.stop()
        completed = 0

        async def ended() -> bool:
            nonlocal completed
            counts = (await self._cluster.get("/v1/stats"))["jobs_by_status"]
            completed = counts["completed"]
            return bool(counts["pending"] + counts["running"] == 0)

        await self._cluster.until(ended, "all jobs to end", PATIENCE_S)
        return completed

    def outages(self, runs: list[Run]) -> list[Outage]:
        begun_s = sorted(run.begun_s for run in runs)
        accepted_s = self._load.accepted_s
        return [
            Outage(silence_ms(accepted_s, *window), silence_ms(begun_s, *window))
            for window in self.windows_s
        ]


async def measure(
    name: str, ill: Ill, repetitions: int, rate: float, folder: Path, seed: int = 1
) -> Measured:
    """The whole of it in `folder`, which is used for nothing else."""
    at, load_before = datetime.now(UTC).isoformat(timespec="seconds"), os.getloadavg()[0]
    runs_file = folder / "runs"
    async with AsyncExitStack() as stack:
        wires = await stack.enter_async_context(Wires(3, seed)) if ill.wires else None
        cluster = await stack.enter_async_context(
            LocalCluster(
                folder, 3, FLAGS, {FILE_VARIABLE: str(runs_file)},
                places=wires.places if wires else (), program=PROGRAM if ill.hurt else NODE,
            )
        )  # fmt: skip
        if wires is not None:
            wires.owner = partial(owner, cluster)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), middlewares=(once,))
        )
        for worker in ("w1", "w2"):
            await cluster.worker(worker, TASKS, slots=SLOTS)
        load = Load(Asker(session, [node.url for node in cluster.nodes]), rate)
        rig = Rig(Field(cluster, Random(f"availability/{seed}"), wires), load, ill)
        load.start()
        for _ in range(repetitions):
            await rig.strike()
        completed = await rig.finished()
    runs = read_runs(runs_file)
    lost, doubled, ran_again = outcome(load.ids, runs, completed)
    return Measured(
        name, ill.about, rate, rig.outages(runs), len(load.ids), lost, doubled, ran_again,
        load.repeated, at, commit(), [round(load_before, 1), round(os.getloadavg()[0], 1)],
    )  # fmt: skip


def commit() -> str:
    """What is measured; "" outside of a repository."""
    words = ["git", "describe", "--always", "--dirty"]
    answer = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    return answer.stdout.strip()
