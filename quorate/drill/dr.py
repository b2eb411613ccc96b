"""The region is lost: its backup, perhaps with the kept log, becomes a cluster elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

from . import criteria, jobs
from .load import Load
from .region import freeze
from .restoring import Restoring
from .scene import Scene
from .step import Step

LOAD_SECONDS = 5.0
KEPT_LOG_GOAL_SECONDS = 5.0  # it is written once a second


class DisasterRecovery(Restoring):
    """What is lost came after the recovery point, and nothing out of the middle."""

    name = "dr"
    summary = "The live cluster is taken for lost; three local nodes go on from its backup."
    rto_goal_seconds = 900.0
    nodes = 3

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        # Jobs that are still pending at the end: what has ended is in no backup without history.
        self.load = Load(self.client, scene.queue, delay=timedelta(minutes=scene.options.minutes))

    def steps(self) -> Sequence[Step]:
        own_backup = (Step("baseline", "take a backup", self.take),)
        return (
            Step("baseline", "start two workers on the drill's queue", self.hire),
            Step("baseline", "submit jobs of every kind", self.fill),
            Step("baseline", "note counts and random jobs", self.look),
            *(own_backup if self.kept is None else ()),
            Step("baseline", "go on submitting", self.go_on),
            Step("fault", "take the live cluster for lost", self.lose),
            Step("recovery", "restore three local nodes", self.restore),
            Step("recovery", "start them", self.start),
            Step("recovery", "start workers there, run a job", self.begin_work),
            Step("validation", "look at the live jobs again", self.look_again),
            Step("validation", "compare the restored jobs and counts", self.compare_restored),
            Step("validation", "what was acknowledged is there", self.check_acknowledged),
            Step("validation", "the live cluster is as it was", self.compare),
            Step("validation", "run the test jobs in the restored cluster", self.test_restored),
            Step("failback", "end the restored cluster", self.give_up),
        )

    async def leave(self) -> None:
        await self.load.stop()
        await super().leave()

    async def go_on(self) -> str | None:
        self.load.start()
        await asyncio.sleep(LOAD_SECONDS)
        return None

    async def lose(self) -> str | None:
        """Nothing is done to it: the drill only stops using it."""
        self.lost_at = time.monotonic()
        if self.kept is not None:
            frozen = self.scene.folder / "kept"
            await asyncio.to_thread(freeze, self.kept, frozen)
            self.kept = frozen
        await self.load.stop()
        return f"{len(self.load.acks)} jobs were accepted in the last {LOAD_SECONDS:g} s"

    async def check_acknowledged(self) -> str | None:
        judge, report, acks = self.scene.judge, self.scene.report, self.load.acks
        own = [i for i in self.looked_at if i in self.before]
        known = await jobs.statuses(self.away, [*own, *(ack.job_id for ack in acks)])
        judge(criteria.nothing_lost("RPO: before the recovery point", own, known))
        in_order = sorted((ack.job_id for ack in acks), key=int)
        judge(criteria.no_holes("RPO: nothing out of the middle", in_order, known))
        lost = [ack.at for ack in acks if ack.job_id not in known]
        report.rpo_jobs = len(lost) + len(set(own) - set(known))
        report.rpo_seconds = self.lost_at - min(lost) if lost else 0.0
        judge(criteria.within("RPO", report.rpo_seconds, self._rpo_goal()))
        return None

    def _rpo_goal(self) -> float:
        if self.kept is None:
            self.scene.report.notes.append(
                "Without --kept-log the recovery point is the backup that the drill took: in "
                "earnest everything since the newest backup is lost (backup_every_seconds)."
            )
        asked = self.scene.options.rpo_seconds
        if asked is not None:
            return asked
        return KEPT_LOG_GOAL_SECONDS if self.kept is not None else self.lost_at - self.asked_at
