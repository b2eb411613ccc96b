"""The rows of jobs, and what they share.

Rows are msgspec structs without GC tracking: at millions of rows the cyclic collector must not
walk them, and no row is ever part of a reference cycle (rows point at shared `SpecRow`s and at
their `Timer`; timers know job ids, not rows).
"""

from __future__ import annotations

from msgspec import Struct

from cluster.machine.model import Attempt, JobSpec
from cluster.timerwheel import Timer


class QueueRow(Struct, gc=False):
    """Live counts of one queue; `specs` of live jobs name it."""

    name: str
    scheduled: int = 0
    ready: int = 0
    retrying: int = 0
    running: int = 0
    specs: int = 0


class SpecRow(Struct, gc=False):
    """An interned `JobSpec`; `jobs` live rows point here, at zero it is forgotten."""

    spec: JobSpec
    queue: QueueRow
    lane: tuple[str, str]  # (queue, name): what a worker must offer
    jobs: int = 0


class JobExtra(Struct, gc=False):
    """What most jobs do not have. Times are epoch ms, 0 means none."""

    unique_key: str = ""
    unique_ttl_ms: int = 0
    schedule_id: str = ""
    nominal_ms: int = 0
    expires_at_ms: int = 0
    deadline_ms: int = 0
    attempts: list[Attempt] | None = None
    expire_timer: Timer | None = None
    deadline_timer: Timer | None = None
    stop_by_ms: int = 0  # it was asked to stop; then its attempt ends whatever the worker says
    stop_timer: Timer | None = None


class Job(Struct, gc=False):
    """A live job. `run_at_ms` is when it is (or became) due; `timer` waits for due or overdue,
    a running job without one is overdue already.

    A row lives through one attempt: a job that comes back from a worker or from the dead gets a new
    row. So whoever kept the old one (a ready queue, the history) never sees it come to life again.
    """

    id: int
    kind: SpecRow
    payload: bytes
    state: int
    created_ms: int
    run_at_ms: int
    attempt: int = 0
    failures: int = 0
    worker_id: int = 0
    started_ms: int = 0
    timer: Timer | None = None
    extra: JobExtra | None = None


def new_row(job: Job) -> Job:
    """The same job in a row of its own."""
    assert job.timer is None
    row: Job = job.__copy__()  # type: ignore[attr-defined]  # every Struct has it
    return row
