"""A backup is taken, read, and made into a node that shows what is in it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from . import criteria, jobs
from .restoring import Restoring
from .step import Step


class BackupDrill(Restoring):
    """All that was acknowledged before the backup was asked for is in it, as it was."""

    name = "backup"
    summary = "A backup of the live cluster, restored into one node on the drill's machine."

    def steps(self) -> Sequence[Step]:
        return (
            Step("baseline", "start two workers on the drill's queue", self.hire),
            Step("baseline", "submit jobs of every kind", self.fill),
            Step("baseline", "note counts and random jobs", self.look),
            Step("fault", "take a backup; imagine the cluster gone", self.take_and_lose),
            Step("recovery", "read the file", self.check_file),
            Step("recovery", "restore it into one local node", self.restore),
            Step("recovery", "start the node", self.start),
            Step("recovery", "start workers there, run a job", self.begin_work),
            Step("validation", "look at the live jobs again", self.look_again),
            Step("validation", "compare the restored jobs and counts", self.compare_restored),
            Step("validation", "what was acknowledged is there", self.check_acknowledged),
            Step("validation", "the live cluster is as it was", self.compare),
            Step("validation", "run the test jobs in the restored cluster", self.test_restored),
            Step("failback", "end the restored node", self.give_up),
        )

    async def take_and_lose(self) -> str | None:
        text = await self.take()
        self.lost_at = time.monotonic()
        return text

    async def check_acknowledged(self) -> str | None:
        own = [i for i in self.looked_at if i in self.before]
        known = await jobs.statuses(self.away, own)
        self.scene.report.rpo_jobs = len(set(own) - set(known))
        self.scene.judge(criteria.nothing_lost("RPO", own, known))
        return None
