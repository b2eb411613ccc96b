"""What every drill is made of: steps, and the steps that several drills share."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..client import Client
from . import compare, criteria, jobs
from .jobs import Counts, Jobs, TestJobs
from .scene import SHARE_OF_SUCCESS, Scene
from .step import Step

TEST_JOBS_SECONDS = 300.0
RUNNING = 8


class Script:
    """A drill. Subclasses name their steps; the attributes are what one step leaves for another."""

    name = ""
    summary = ""
    rto_goal_seconds = 120.0
    rpo_goal_seconds = 0.0

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.client = scene.client
        self.before: Jobs = {}  # the drill's own jobs
        self.others: Jobs = {}  # random ones of the cluster
        self.counts: Counts | None = None

    def steps(self) -> Sequence[Step]:
        raise NotImplementedError

    async def leave(self) -> None:
        """Ends what the drill itself started besides its workers."""

    @property
    def rto_goal(self) -> float:
        asked = self.scene.options.rto_seconds
        return self.rto_goal_seconds if asked is None else asked

    # -- steps that drills share -----------------------------------------------------------------

    async def hire(self) -> str | None:
        """Workers of the drill's own queue."""
        await self.scene.crew.hire(2)
        return None

    async def fill(self) -> str | None:
        """Jobs of every kind, each where it belongs."""
        await self.scene.test_jobs.fill(RUNNING, str(self.scene.release))
        return ", ".join(f"{len(ids)} {kind}" for kind, ids in self.scene.test_jobs.ids.items())

    async def look(self) -> str | None:
        """Counts, the drill's own jobs, and random ones of everybody's."""
        options = self.scene.options
        self.counts = await jobs.counts(self.client)
        self.before = await jobs.fetch(self.client, self.scene.test_jobs.all_ids)
        top = int(self.scene.announcement)
        drawn = await jobs.draw(self.client, top, options.sample, self.live_only)
        self.others = await jobs.fetch(self.client, drawn)
        if len(self.others) < options.sample:
            self.scene.report.notes.append(
                f"{options.sample} random jobs were to be compared; the cluster had "
                f"{len(self.others)} that were not the drill's own."
            )
        text = criteria.counts_text(self.counts.live)
        return f"{text} in the cluster; {len(self.before)} own and {len(self.others)} other jobs"

    @property
    def live_only(self) -> bool:
        """Whether jobs that only the history has are left out of the sample."""
        return False

    async def compare(self) -> str | None:
        """The same jobs again, and as many of each status."""
        own = await jobs.fetch(self.client, self.before)
        others = await jobs.fetch(self.client, self.others)
        before, after = map(compare.by_status, (self.before.values(), own.values()))
        judge = self.scene.judge
        judge(criteria.same_counts("counts of the drill's jobs", before, after))
        untouched = {i: job for i, job in self.before.items() if i not in self.touched}
        judge(
            criteria.no_differences(
                "the drill's jobs", len(untouched), compare.unchanged(untouched, own)
            )
        )
        judge(
            criteria.no_differences(
                "random jobs", len(others), compare.moved_on(self.others, others)
            )
        )
        return None

    @property
    def touched(self) -> set[str]:
        """Own jobs that the drill itself has done something to."""
        return set()

    async def run_test_jobs(self, client: Client | None = None) -> str | None:
        """Many short jobs, from submission to end; in another cluster if one is named."""
        began = time.monotonic()
        options, where = self.scene.options, client or self.client
        batch, count = TestJobs(where, self.scene.queue, options.minutes), options.jobs
        await batch.submit("test", "drill.quick", list(range(count)))
        found = await jobs.until_status(
            where, batch.ids["test"], compare.FINISHED, TEST_JOBS_SECONDS
        )
        self.scene.judge(criteria.succeeded("test jobs", count, found, SHARE_OF_SUCCESS))
        return f"{count} jobs in {criteria.seconds_text(time.monotonic() - began)}"

    async def let_end(self, client: Client | None = None) -> str | None:
        """The running jobs are released, and complete."""
        self.scene.release.touch()
        ids = self.scene.test_jobs.ids["running"]
        found = await jobs.until_status(client or self.client, ids, compare.FINISHED, 60.0)
        self.scene.judge(
            criteria.same_counts("running jobs, once released", {"completed": len(ids)}, found)
        )
        return None
