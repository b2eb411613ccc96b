"""A worker is killed in the middle of its jobs."""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import Process
from collections.abc import Sequence

from . import criteria, jobs
from .script import Script
from .step import DrillError, Step

LOOK_SECONDS = 0.02


class WorkerLoss(Script):
    """The jobs of the dead worker have used an attempt up, run again elsewhere, and end once."""

    name = "worker-loss"
    summary = "kill -9 of one of the drill's two workers while it runs jobs."

    victim: Process
    held: frozenset[str] = frozenset()
    killed_at = 0.0

    def steps(self) -> Sequence[Step]:
        return (
            Step("baseline", "start two workers on the drill's queue", self.hire),
            Step("baseline", "submit jobs of every kind", self.fill),
            Step("baseline", "note counts and random jobs", self.look),
            Step("fault", "kill -9 a worker that runs jobs", self.kill),
            Step("recovery", "wait until its jobs run elsewhere", self.wait),
            Step("validation", "compare jobs and counts", self.compare),
            Step("validation", "let the running jobs end", self.let_end),
            Step("validation", "every job ended once", self.check_ends),
            Step("validation", "run the test jobs", self.run_test_jobs),
            Step("failback", "start a worker in its place", self.replace),
        )

    async def kill(self) -> str | None:
        crew = self.scene.crew
        self.victim = max(crew.workers, key=lambda worker: len(crew.running_on(worker)))
        self.held = frozenset(crew.running_on(self.victim))
        if not self.held:
            raise DrillError("no worker of the drill runs a job")
        self.killed_at = time.monotonic()
        await crew.kill(self.victim)
        return f"pid {self.victim.pid} with {len(self.held)} jobs"

    async def wait(self) -> str | None:
        give_up_at = self.killed_at + max(self.rto_goal, 1.0)
        again = self._again()
        while again.keys() != self.held and time.monotonic() < give_up_at:
            await asyncio.sleep(LOOK_SECONDS)
            again = self._again()
        found = max(again.values()) - self.killed_at if again.keys() == self.held else None
        report = self.scene.report
        report.rto_seconds, report.rto_of = found, "from the kill until all its jobs ran again"
        self.scene.judge(criteria.within("RTO", found, self.rto_goal))
        return f"{len(again)} of {len(self.held)} jobs run again"

    def _again(self) -> dict[str, float]:
        """When each job of the victim began on another worker."""
        began: dict[str, float] = {}
        for mark in self.scene.crew.marks():
            if mark.event == "start" and mark.job_id in self.held and mark.pid != self.victim.pid:
                began.setdefault(mark.job_id, mark.at)
        return began

    @property
    def touched(self) -> set[str]:
        return set(self.held)

    async def check_ends(self) -> str | None:
        batch, judge = self.scene.test_jobs, self.scene.judge
        ids = [i for kind in ("completed", "failed", "running") for i in batch.ids[kind]]
        judge(criteria.ended_once("ends", await jobs.timelines(self.client, ids)))
        now = await jobs.fetch(self.client, batch.ids["running"])
        attempts = {str(job["attempt"]) for i, job in now.items() if i in self.held}
        rest = {str(job["attempt"]) for i, job in now.items() if i not in self.held}
        judge(criteria.holds("attempts of the dead worker's jobs", "2", ", ".join(attempts)))
        if rest:
            judge(criteria.holds("attempts of the other jobs that ran", "1", ", ".join(rest)))
        known = await jobs.statuses(self.client, batch.all_ids)
        self.scene.report.rpo_jobs = len(set(batch.all_ids) - set(known))
        judge(criteria.nothing_lost("RPO", batch.all_ids, known))
        return None

    async def replace(self) -> str | None:
        if not self.held:
            return "none was killed"
        await self.scene.crew.hire(1)
        return None
