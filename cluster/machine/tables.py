"""How rows are stored. Only this module knows, and what it is made of: `rows`, `blocks` and
`jobtable` for jobs. Reducers and views go through it.

No row is tracked by the cyclic collector, see `rows`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from msgspec import Struct
from sortedcontainers import SortedDict

from cluster.machine import lifecycle
from cluster.machine.blocks import Block
from cluster.machine.commands import JobChanges
from cluster.machine.jobtable import JobTable
from cluster.machine.model import JobSpec, ScheduleEvent, WorkerSpec
from cluster.machine.rows import Job, JobExtra, QueueRow, SpecRow, new_row
from cluster.machine.workforce import Workforce
from cluster.plan import Plan
from cluster.timerwheel import Timer

__all__ = [  # what is passed on: nobody else needs to know where a job's row is made
    "Block",
    "Job",
    "JobExtra",
    "JobTable",
    "QueueRow",
    "SpecRow",
    "new_row",
]

QUEUES_IDLE_MAX = 1_000  # idle queues are shown, but names made up per job must not pile up


class DeadJob(Struct, gc=False):
    """A dead letter: the job's last row and why it died."""

    job: Job
    finished_ms: int
    error_type: str
    error_message: str
    log: str = ""


class WorkerRow(Struct, gc=False):
    """A registered worker; `running` keeps assignment order."""

    id: int
    spec: WorkerSpec
    registered_ms: int
    running: dict[int, None]
    draining: bool = False


class ManualRun(Struct, array_like=True, frozen=True, gc=False):
    """Triggered by hand and not started yet."""

    nominal_ms: int
    changes: JobChanges


class Backfill(Struct, gc=False):
    """Occurrences of the past that shall run. `waiting` were not offered yet; `buffer` were, at
    ticks, and wait for a run to end. `finished_ms` 0: it goes on."""

    id: int
    overlap: str
    per_minute: int
    note: str
    created_ms: int
    total: int
    waiting: array[int]
    buffer: array[int]
    launched: int = 0
    skipped: int = 0
    finished_ms: int = 0
    next_ms: int = 0  # the next tick
    timer: Timer | None = None


class Waiting(Struct, gc=False):
    """What a schedule wants to run and may not yet: nominal times, and runs asked for by hand."""

    late: array[int]
    buffer: array[int]
    manual: list[ManualRun]
    backfills: dict[int, Backfill]


def nominals(values: Iterable[int] = ()) -> array[int]:
    """Eight bytes each, as thousands of schedules may have many."""
    return array("q", values)


def new_waiting() -> Waiting:
    return Waiting(nominals(), nominals(), [], {})


class ScheduleRow(Struct, gc=False):
    """A recurring job. `next_fire_ms` is when the next occurrence is due, 0 when there is none or
    it is paused; `next_nominal_ms` the time by which that occurrence is known.

    Every occurrence up to `accounted_ms` was launched or written down. `version` grows with each
    definition. Without a timer a planned one is due: see `State.due_schedules`."""

    id: str
    spec: JobSpec
    payload: bytes
    cron: str
    every_ms: int
    next_fire_ms: int
    created_ms: int
    queue_timeout_ms: int = 0
    total_timeout_ms: int = 0
    paused: bool = False
    note: str = ""
    last_fire_ms: int = 0
    last_job_id: int = 0
    run_count: int = 0
    skipped_count: int = 0
    timer: Timer | None = None
    plan: Plan = Plan(())
    overlap: str = "allow_all"
    max_executions: int = 0
    executions: int = 0  # launched by plan, on time or late
    version: int = 1
    changed_ms: int = 0
    ended: str = ""  # why nothing is planned any more
    next_nominal_ms: int = 0
    last_nominal_ms: int = 0
    accounted_ms: int = 0
    next_backfill_id: int = 1
    waiting: Waiting | None = None
    recent: array[int] | None = None  # see `strip`
    events: list[ScheduleEvent] | None = None


class CalendarRow(Struct, gc=False):
    """Named days. `users` are the schedules whose plan names it."""

    name: str
    days: array[int]
    labels: tuple[str, ...]
    description: str
    source: str
    version: int
    changed_ms: int
    users: dict[str, None]


class Totals(Struct, gc=False):
    """Replicated counters since the cluster began, so that they survive failover and restart."""

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0
    retries: int = 0
    lost_workers: int = 0
    fired: int = 0
    rejected_internal: int = 0
    revived: int = 0


class KeyRecord(Struct, gc=False):
    """What an idempotency key answered: ids are `first..first+count-1`, or `ids`."""

    fingerprint: int
    first: int
    count: int
    ids: list[int] | None
    expires_ms: int


class UniqueRecord(Struct, gc=False):
    """Who holds a unique key; `expires_ms` 0 while the job lives."""

    job_id: int
    expires_ms: int


class Tables:
    """All rows of the cluster."""

    def __init__(self) -> None:
        self.jobs = JobTable()
        self.dead: SortedDict = SortedDict()  # job id -> DeadJob
        self.specs: dict[JobSpec, SpecRow] = {}
        self.queues: dict[str, QueueRow] = {}
        self.workers: dict[int, WorkerRow] = {}
        self.workforce = Workforce()  # sums over `workers`
        self.schedules: SortedDict = SortedDict()  # schedule id -> ScheduleRow
        self.requests: dict[str, KeyRecord] = {}
        self.uniques: dict[str, UniqueRecord] = {}
        # Live jobs by the schedule that launched them, also when that is gone: it may come back
        # under the same name. Whoever goes through them sorts them: one may have been dead.
        self.runs: dict[str, dict[int, None]] = {}
        self.calendars: SortedDict = SortedDict()  # name -> CalendarRow
        # What policy reads; replaced, never changed, as somebody may be walking with the old one.
        self.calendar_days: dict[str, frozenset[int]] = {}

    def add_worker(self, row: WorkerRow) -> None:
        self.workers[row.id] = row
        self.workforce.add(row.spec, row.draining)

    def change_worker(self, row: WorkerRow, spec: WorkerSpec, draining: bool) -> None:
        self.workforce.remove(row.spec, row.draining)
        row.spec, row.draining = spec, draining
        self.workforce.add(spec, draining)

    def drop_worker(self, row: WorkerRow) -> None:
        del self.workers[row.id]
        self.workforce.remove(row.spec, row.draining)

    def put_calendar(self, row: CalendarRow) -> None:
        self.calendars[row.name] = row
        self.calendar_days = {**self.calendar_days, row.name: frozenset(row.days)}

    def drop_calendar(self, name: str) -> None:
        del self.calendars[name]
        self.calendar_days = {n: days for n, days in self.calendar_days.items() if n != name}

    def add_run(self, schedule_id: str, job_id: int) -> None:
        self.runs.setdefault(schedule_id, {})[job_id] = None

    def drop_run(self, schedule_id: str, job_id: int) -> None:
        runs = self.runs.get(schedule_id)
        if runs is not None:
            runs.pop(job_id, None)
            if not runs:
                del self.runs[schedule_id]

    def intern(self, spec: JobSpec) -> SpecRow:
        """The shared row of this spec, created on first sight."""
        row = self.specs.get(spec)
        if row is None:
            queue = self.queues.get(spec.queue)
            if queue is None:
                queue = self.queues[spec.queue] = QueueRow(spec.queue)
            queue.specs += 1
            row = self.specs[spec] = SpecRow(spec, queue, (spec.queue, spec.name))
        return row

    def release_spec(self, row: SpecRow) -> None:
        """One live job fewer points at this spec."""
        row.jobs -= 1
        if not row.jobs:
            self.forget_spec(row)

    def forget_spec(self, row: SpecRow) -> None:
        """No live job points at this spec any more."""
        del self.specs[row.spec]
        queue = row.queue
        queue.specs -= 1
        if not queue.specs and len(self.queues) > QUEUES_IDLE_MAX:
            del self.queues[queue.name]

    def count(self, row: Job, state: int, step: int) -> None:
        """Book that `row` enters (+1) or leaves (-1) `state` in its queue's counts."""
        self.count_kind(row.kind, state, step)

    def count_kind(self, kind: SpecRow, state: int, step: int) -> None:
        """Book `step` rows of this kind more (or fewer) in `state`."""
        queue = kind.queue
        if state == lifecycle.READY:
            queue.ready += step
        elif state == lifecycle.RUNNING:
            queue.running += step
        elif state == lifecycle.SCHEDULED:
            queue.scheduled += step
        elif state == lifecycle.RETRYING:
            queue.retrying += step
