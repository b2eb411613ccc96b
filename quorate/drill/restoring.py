"""What the drills have in common that restore a backup beside the live cluster, and compare."""

from __future__ import annotations

import time
from pathlib import Path

from ..client import Client
from . import compare, criteria, jobs
from .crew import Crew
from .jobs import Counts, Jobs
from .region import Region, newest_backup, offline
from .scene import Scene
from .script import Script

REGION_RETRY_SECONDS = 60.0


class Restoring(Script):
    """The live cluster is only read, but for the drill's own jobs. `nodes` of them are restored."""

    nodes = 1

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.region = Region(scene.folder, self.nodes)
        self.away = Client(self.region.urls, retry_seconds=REGION_RETRY_SECONDS)
        self.away_crew = Crew(scene.folder, self.region.urls, scene.queue)
        self.backup: Path = scene.folder / "backup.tar"
        self.kept = scene.options.kept_log  # a folder of backups and log
        self.asked_at = 0.0  # monotonic: when the backup was asked for
        self.lost_at = 0.0  # monotonic: when the live cluster is taken for lost
        self.later: Jobs = {}  # all jobs looked at, once more after the backup
        self.later_counts: Counts | None = None
        self.away_counts: Counts | None = None

    async def leave(self) -> None:
        await self.away_crew.stop()
        await self.away.close()
        await self.region.stop()

    @property
    def live_only(self) -> bool:
        return not self.scene.options.history

    @property
    def looked_at(self) -> Jobs:
        """Jobs that the backup must have: without its history, only what lives and dead letters."""
        own = self.scene.test_jobs.ids
        kinds = [k for k in own if k != "completed" or self.scene.options.history]
        mine = {i: self.before[i] for kind in kinds for i in own[kind] if i in self.before}
        return {**self.others, **mine}

    async def take(self) -> str | None:
        """A backup through the API, as an operator takes it."""
        self.asked_at = time.monotonic()
        history = self.scene.options.history
        manifest = await self.client.backups.save(self.backup, history=history)
        took = criteria.seconds_text(time.monotonic() - self.asked_at)
        size = self.backup.stat().st_size
        return f"log index {manifest['index']}, {manifest['jobs']} jobs, {size} bytes in {took}"

    async def check_file(self) -> str | None:
        """Every byte read, as a restore would."""
        told = await offline("verify", str(self.backup))
        manifest = told["manifest"]
        for name in ("jobs", "dead_letters", "schedules"):
            judge = criteria.holds(f"{name} in the file", manifest[name], told[name])
            self.scene.judge(judge)
        return None

    async def look_again(self) -> str | None:
        """The same jobs after the backup: what is the same in both looks must be so in it."""
        self.later = await jobs.fetch(self.client, self.looked_at)
        self.later_counts = await jobs.counts(self.client)
        return None

    async def restore(self) -> str | None:
        if self.kept is not None:
            self.backup = newest_backup(self.kept)
        told = await self.region.restore(self.backup, self.kept)
        return (
            f"{self.backup.name}: log index {told['index']}, {told['replayed_entries']} entries "
            f"replayed, {told['running_jobs']} jobs were running"
        )

    async def start(self) -> str | None:
        await self.region.start()
        self.away_counts = await jobs.counts(self.away)
        return None

    async def begin_work(self) -> str | None:
        """Workers, and the first job from submission to end; then the cluster is back."""
        await self.away_crew.hire(2)
        handle = await self.away.submit("drill.quick", queue=self.scene.queue)
        await handle.result(timeout=REGION_RETRY_SECONDS)
        report = self.scene.report
        report.rto_seconds = time.monotonic() - self.lost_at
        report.rto_of = "from the loss until a job had run in the restored cluster"
        self.scene.judge(criteria.within("RTO", report.rto_seconds, self.rto_goal))
        return None

    async def compare_restored(self) -> str | None:
        """Field by field, and the numbers of the whole."""
        judge, first = self.scene.judge, self.looked_at
        restored = await jobs.fetch(self.away, first)
        own = {i: job for i, job in first.items() if i in self.before}
        others = {i: job for i, job in first.items() if i not in self.before}
        for name, looked in (("the drill's jobs", own), ("random jobs", others)):
            found = compare.brought_back(looked, self.later, restored)
            judge(criteria.no_differences(f"{name}, restored", len(looked), found))
        assert self.counts and self.later_counts and self.away_counts
        moved = self.later_counts.moved_since(self.counts)
        judge(
            criteria.counts_within(
                "jobs of the cluster, restored",
                self.counts.standing,
                self.away_counts.standing,
                moved,
            )
        )
        schedule = await self.away.schedules.get(self.scene.queue)
        judge(criteria.holds("the drill's schedule, restored", "drill.quick", schedule.name))
        return None

    async def test_restored(self) -> str | None:
        """The test jobs run in the restored cluster; the running ones of the backup end there."""
        text = await self.run_test_jobs(self.away)
        await self.let_end(self.away)
        ids = self.scene.test_jobs.ids["running"]
        stories = await jobs.timelines(self.away, ids)
        self.scene.judge(criteria.ended_once("jobs that ran, restored", stories))
        return text

    async def give_up(self) -> str | None:
        """The restored cluster and its data go."""
        await self.leave()
        return None
