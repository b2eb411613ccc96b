"""Read-only views of the state, for the API edge. Nobody else's rows leave this package.

Times are epoch ms, 0 means none. A finished job's view is built from the node's history by the
edge; here are live jobs and dead letters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

from msgspec import Struct

from cluster.machine import lifecycle
from cluster.machine.listing import Listing
from cluster.machine.model import Attempt, JobSpec, WorkerSpec
from cluster.machine.schedule_views import (
    BackfillView,
    Outcome,
    ScheduleView,
    backfills,
    calendar_days,
    missed,
    schedule,
    schedule_count,
    schedules,
)
from cluster.machine.state import State
from cluster.machine.tables import DeadJob, Job

__all__ = [  # what is passed on from `schedule_views`
    "BackfillView",
    "Outcome",
    "ScheduleView",
    "backfills",
    "calendar_days",
    "missed",
    "schedule",
    "schedule_count",
    "schedules",
]


class JobView(Struct, gc=False):
    """A job, live or finished."""

    id: int
    spec: JobSpec
    payload: bytes
    state: int
    created_ms: int
    run_at_ms: int
    attempt: int
    failures: int
    worker_id: int = 0
    started_ms: int = 0
    finished_ms: int = 0
    error_type: str = ""
    error_message: str = ""
    output: bytes | None = None
    log: str = ""
    unique_key: str = ""
    schedule_id: str = ""
    nominal_ms: int = 0
    expires_at_ms: int = 0
    deadline_ms: int = 0
    attempts: list[Attempt] | None = None
    is_offered: bool = True  # False: ready, but no registered worker offers its queue and name


class WorkerView(Struct, gc=False):
    id: int
    spec: WorkerSpec
    registered_ms: int
    running: list[int]
    draining: bool


class QueueView(Struct, gc=False):
    name: str
    scheduled: int
    ready: int
    retrying: int
    running: int


class JobFilter(Struct, frozen=True, gc=False):
    """Empty string: any."""

    status: str = ""
    queue: str = ""
    name: str = ""
    tag: str = ""

    def wants(self, spec: JobSpec) -> bool:
        return (
            (not self.queue or spec.queue == self.queue)
            and (not self.name or spec.name == self.name)
            and (not self.tag or self.tag in spec.tags)
        )

    def matches(self, state: int, spec: JobSpec) -> bool:
        return (not self.status or lifecycle.STATUS[state] == self.status) and self.wants(spec)


def _live(job: Job) -> JobView:
    view = JobView(
        job.id,
        job.kind.spec,
        job.payload,
        job.state,
        job.created_ms,
        job.run_at_ms,
        job.attempt,
        job.failures,
        job.worker_id,
        job.started_ms,
    )
    extra = job.extra
    if extra is not None:
        view.unique_key, view.schedule_id = extra.unique_key, extra.schedule_id
        view.nominal_ms, view.expires_at_ms = extra.nominal_ms, extra.expires_at_ms
        view.deadline_ms = extra.deadline_ms
        if extra.attempts:
            view.attempts = list(extra.attempts)  # the row's own list grows
            # Released attempts carry no error; the last one that does is what went wrong.
            last = next((a for a in reversed(extra.attempts) if a.error_type), None)
            if last is not None:
                view.error_type, view.error_message = last.error_type, last.error_message
    return view


def _dead(dead: DeadJob) -> JobView:
    view = _live(dead.job)
    view.finished_ms = dead.finished_ms
    view.error_type, view.error_message = dead.error_type, dead.error_message
    view.log = dead.log
    return view


def _is_offered(state: State, spec: JobSpec) -> bool:
    """Whether some registered worker would be given such a job."""
    return state.tables.workforce.offers(spec.queue, spec.name)


def job(state: State, job_id: int) -> JobView | None:
    """A live job or dead letter; None when it is neither."""
    row = state.tables.jobs.get(job_id)
    if row is not None:
        view = _live(row)
        if row.state == lifecycle.READY:
            view.is_offered = _is_offered(state, view.spec)
        return view
    dead = state.tables.dead.get(job_id)
    return _dead(dead) if dead is not None else None


def mark_offered(state: State, found: list[JobView]) -> None:
    """Tells of ready jobs in a list, as `job` does, whether some worker would be given them."""
    kinds: dict[tuple[str, str], bool] = {}
    for view in found:
        if view.state == lifecycle.READY:
            kind = (view.spec.queue, view.spec.name)
            if kind not in kinds:
                kinds[kind] = _is_offered(state, view.spec)
            view.is_offered = kinds[kind]


def is_known(state: State, job_id: int) -> bool:
    """Whether the id was ever given."""
    return 0 < job_id < state.next_job_id


def jobs(state: State, wanted: JobFilter, before_id: int, limit: int) -> list[JobView]:
    """Live jobs with ids below `before_id` (0: from the newest), newest first."""
    tables = state.tables
    kinds = {id(row): row.jobs for row in tables.specs.values() if wanted.wants(row.spec)}
    states = {s for s, status in lifecycle.STATUS.items() if wanted.status in ("", status)}
    if all(map(lifecycle.is_finished, states)):
        return []
    top = min(before_id, state.next_job_id) if before_id else state.next_job_id
    ids: Iterator[int]
    if states == {lifecycle.RUNNING}:
        ids = _running_below(state, top, kinds)
    else:
        ids = Listing(tables.jobs, kinds, states, sum(kinds.values())).below(top, state.next_job_id)
    return [_live(tables.jobs[job_id]) for job_id in islice(ids, limit)]


def _running_below(state: State, top: int, kinds: Collection[int]) -> Iterator[int]:
    rows = state.tables.jobs
    ids = [i for worker in state.tables.workers.values() for i in worker.running if i < top]
    return (i for i in sorted(ids, reverse=True) if id(rows[i].kind) in kinds)


def dead_jobs(state: State, wanted: JobFilter, before_id: int, limit: int) -> list[JobView]:
    """Dead letters with ids below `before_id` (0: from the newest), newest first."""
    found = []
    maximum = before_id or None
    for job_id in state.tables.dead.irange(maximum=maximum, inclusive=(True, False), reverse=True):
        dead = state.tables.dead[job_id]
        if wanted.matches(lifecycle.FAILED, dead.job.kind.spec):
            found.append(_dead(dead))
            if len(found) >= limit:
                break
    return found


def dead_count(state: State) -> int:
    return len(state.tables.dead)


def workers(state: State, after_id: int, limit: int) -> list[WorkerView]:
    """Workers with ids above `after_id`, in the order in which they came."""
    rows = (row for row in state.tables.workers.values() if row.id > after_id)
    return [
        WorkerView(w.id, w.spec, w.registered_ms, list(w.running), w.draining)
        for w in islice(rows, limit)
    ]


def worker_count(state: State) -> int:
    return len(state.tables.workers)


def active_workers(state: State) -> int:
    """Those that do not drain."""
    return state.tables.workforce.active


def slots(state: State) -> int:
    """Of all registered workers."""
    return state.tables.workforce.slots


def worker(state: State, worker_id: int) -> WorkerView | None:
    w = state.tables.workers.get(worker_id)
    if w is None:
        return None
    return WorkerView(w.id, w.spec, w.registered_ms, list(w.running), w.draining)


def schedule_runs(state: State, schedule_id: str, nominal_ms: int | None = None) -> list[JobView]:
    """Live jobs that a schedule launched (for one nominal time), newest first. Those that ended
    are in the node's history."""
    jobs = state.tables.jobs
    rows = [jobs[job_id] for job_id in sorted(state.tables.runs.get(schedule_id, ()))]
    return [
        _live(row)
        for row in reversed(rows)
        if row.extra is not None and nominal_ms in (None, row.extra.nominal_ms)
    ]


def queues(state: State) -> list[QueueView]:
    return [
        QueueView(q.name, q.scheduled, q.ready, q.retrying, q.running)
        for q in state.tables.queues.values()
    ]


def pending_in_queue(state: State, name: str) -> int:
    row = state.tables.queues.get(name)
    return row.scheduled + row.ready + row.retrying if row is not None else 0


def job_count(state: State) -> int:
    """All live jobs."""
    return len(state.tables.jobs)


def jobs_by_status(state: State) -> dict[str, int]:
    """Live counts for pending and running; since the beginning for the rest."""
    totals = state.totals
    pending = running = 0
    for queue in state.tables.queues.values():
        pending += queue.scheduled + queue.ready + queue.retrying
        running += queue.running
    return {
        "pending": pending,
        "running": running,
        "completed": totals.completed,
        "failed": totals.failed - totals.revived,
        "cancelled": totals.cancelled,
        "skipped": totals.skipped,
    }


def totals(state: State) -> dict[str, int]:
    row = state.totals
    return {name: getattr(row, name) for name in row.__struct_fields__}
