"""Effects: facts that applying a batch brought about. Hints, not truth.

Columns of one object instead of an object per fact: a batch may move thousands of jobs. Leader
actors act on them and every node feeds its projections; whoever misses one can rebuild from state.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from cluster.machine.model import ScheduleEvent
from cluster.machine.tables import Block, Job


class Finished(Struct, frozen=True, gc=False):
    """A job left the live table. `job` is its last row; `finished_ms` is replicated time."""

    job: Job
    finished_ms: int
    output: bytes | None = None
    error_type: str = ""
    error_message: str = ""
    log: str = ""


class Effects(Struct, gc=False):
    """What happened, in the order it happened within each column."""

    jobs_ready: list[Job | Block]  # may be assigned from now on
    jobs_withdrawn: list[Job]  # left the ready queue without running (cancelled, expired)
    jobs_assigned: list[Job]
    jobs_finished: list[Finished]
    jobs_stopped: list[tuple[int, int, int]]  # (worker id, job id, attempt): stop it there
    jobs_overdue: list[tuple[int, int]]  # (job id, attempt): the worker let the deadline pass
    jobs_retrying: int
    schedules_due: list[tuple[str, int]]  # (schedule id, nominal fire time)
    workers_changed: list[int]  # joined, updated, draining
    workers_left: list[int]
    jobs_stopping: list[tuple[int, int, int]]  # as jobs_stopped, but its answer is awaited
    schedule_events: list[tuple[str, ScheduleEvent]]
    schedule_lags_ms: list[int]  # from fire time to launch, of those on time
    calendars_changed: list[str]  # put or deleted


def ready_rows(effects: Effects) -> Iterator[Job]:
    """One by one what is ready; of blocks, the jobs that are still in them. To be read at once."""
    for entry in effects.jobs_ready:
        if isinstance(entry, Job):
            yield entry
        else:
            yield from map(entry.look, entry.ids())


def new_effects() -> Effects:
    return Effects([], [], [], [], [], [], 0, [], [], [], [], [], [], [])
