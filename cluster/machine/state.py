"""The whole replicated state and the few moves that every reducer shares."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.machine import lifecycle
from cluster.machine.effects import Effects, Finished
from cluster.machine.levels import BASE_LEVEL
from cluster.machine.tables import Block, DeadJob, Job, Tables, Totals, new_row
from cluster.machine.timers import DUE, Timers
from cluster.machine.unique import release_unique

FIRST_ID = 1
NO_JOBS = range(0)


class State:
    """Tables, timers, replicated time and the ids given so far.

    `now_ms` is the largest leader clock seen; `epoch` the newest leader's term; `digest` rolls over
    every batch and its results, so equal digests at equal log positions mean equal histories.
    """

    def __init__(self) -> None:
        self.tables = Tables()
        self.timers = Timers()
        self.totals = Totals()
        self.now_ms = 0
        self.epoch = 0
        self.digest = 0
        self.level = BASE_LEVEL  # what all members understand, see `levels`
        self.next_job_id = FIRST_ID
        self.next_worker_id = FIRST_ID
        self.next_schedule_id = FIRST_ID
        self.due_schedules: dict[str, None] = {}  # their timer fired, they are not launched yet
        self.releases = ""  # what all plans were computed with
        self.missed: dict[str, int] = {}  # occurrences that did not run, by reason
        self.new_jobs = NO_JOBS  # only inside a batch: of its last submission, not assigned so far
        # Only inside a command, until `overlap.settle`:
        self.runs_ended: list[Job] = []  # of schedules
        self.schedules_freed: dict[str, None] = {}  # there may be room for what waits

    def make_ready(self, job: Job, state_after: int, effects: Effects) -> None:
        """A pending or handed-back job may be assigned from now on."""
        self.tables.count(job, job.state, -1)
        job.state = state_after
        self.tables.count(job, state_after, +1)
        effects.jobs_ready.append(job)

    def own(self, job_id: int) -> Job | None:
        """The row of a live job, to change it: from now on it has one of its own."""
        return self.own_all((job_id,))[0]

    def own_all(self, job_ids: Sequence[int]) -> list[Job | None]:
        """The rows of these jobs, to change them; None for whoever is not live."""
        jobs, at = self.tables.jobs, 0
        rows: list[Job | None] = []
        while at < len(job_ids):
            job = jobs.row(job_ids[at])
            block = jobs.block_of(job_ids[at]) if job is None else None
            if block is None:
                rows.append(job)
            else:
                rows += self._own_run(block, block.run(job_ids, at))
            at = len(rows)
        return rows

    def _own_run(self, block: Block, ids: list[int]) -> list[Job]:
        rows = self.take_out(block, block.leave(ids))
        if block.state == lifecycle.SCHEDULED:
            timer = self.timers.add(block.run_at_ms, DUE, ids)
            for row in rows:
                row.timer = timer
        return rows

    def take_out(self, block: Block, rows: list[Job]) -> list[Job]:
        """These rows just left their block."""
        self.tables.jobs.take_out(block, rows)
        if not block.live and block.timer is not None:
            self.timers.drop(block.timer)
            block.timer = None
        return rows

    def take_back(self, job: Job) -> Job:
        """A job returns from its worker and goes on in a new row."""
        row = new_row(job)
        self.tables.jobs.replace(row)
        return row

    def leave_worker(self, job: Job) -> None:
        """The attempt of a running job is over: free its timer and its place at the worker."""
        self.timers.release(job)
        worker = self.tables.workers.get(job.worker_id)
        if worker is not None:
            worker.running.pop(job.id, None)

    def finish(self, job: Job, state_after: int, finished: Finished, effects: Effects) -> None:
        """The job leaves the live table; nothing below can fail."""
        tables = self.tables
        tables.count(job, job.state, -1)
        job.state = state_after
        extra = job.extra
        if extra is not None:
            self.timers.release_extra(extra)
            if extra.unique_key:
                release_unique(self, extra, job.id)
            if extra.schedule_id:
                self.runs_ended.append(job)
        tables.jobs.remove(job.id)
        tables.release_spec(job.kind)
        effects.jobs_finished.append(finished)

    def bury(self, job: Job, finished: Finished, effects: Effects) -> None:
        """Finish as failed and keep a dead letter; the leader's janitor bounds their number."""
        self.finish(job, lifecycle.FAILED, finished, effects)
        self.totals.failed += 1
        self.tables.dead[job.id] = DeadJob(
            job, finished.finished_ms, finished.error_type, finished.error_message, finished.log
        )
