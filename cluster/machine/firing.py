"""What happens when a replicated timer is due. Runs at the start of every batch, on every node."""

from __future__ import annotations

from cluster.machine import lifecycle
from cluster.machine.effects import Effects, Finished
from cluster.machine.state import State
from cluster.machine.tables import Job
from cluster.machine.timers import DEADLINE, DUE, EXPIRE, KEYS, OVERDUE, SCHEDULE
from cluster.machine.unique import forget_keys

WAKE = lifecycle.transitions("due")
EXPIRED = lifecycle.transitions("expire")


def fire_due(state: State, effects: Effects) -> None:
    """Fire all timers up to the replicated clock. A member whose row waits no more is skipped."""
    for due_ms, kind, member in state.timers.take_due(state.now_ms):
        if kind == KEYS:
            forget_keys(state, due_ms)
        elif kind == SCHEDULE:
            _schedule_due(state, str(member), due_ms, effects)
        else:
            job = state.tables.jobs.get(member)  # type: ignore[arg-type]
            if job is not None:
                _JOB_TIMERS[kind](state, job, due_ms, effects)


def _schedule_due(state: State, schedule_id: str, due_ms: int, effects: Effects) -> None:
    row = state.tables.schedules.get(schedule_id)
    if row is not None and row.next_fire_ms == due_ms:
        row.timer = None
        effects.schedules_due.append((schedule_id, due_ms))


def _job_due(state: State, job: Job, due_ms: int, effects: Effects) -> None:
    if job.state in WAKE and job.timer is not None and job.timer.due_ms == due_ms:
        job.timer = None
        state.make_ready(job, WAKE[job.state], effects)


def _job_overdue(state: State, job: Job, due_ms: int, effects: Effects) -> None:
    """The leader decides what becomes of it; the machine only tells."""
    if (
        job.state == lifecycle.RUNNING
        and job.timer is not None
        and job.timer.due_ms == due_ms
    ):
        job.timer = None
        effects.jobs_overdue.append((job.id, job.attempt))


def _job_expired(state: State, job: Job, due_ms: int, effects: Effects) -> None:
    extra = job.extra
    if extra is None or extra.expires_at_ms != due_ms:
        return
    extra.expire_timer = None
    if job.state in EXPIRED and job.attempt == 0:
        _end_waiting(state, job, "expired", "nobody started it before expires_at", effects)


def _job_deadline(state: State, job: Job, due_ms: int, effects: Effects) -> None:
    extra = job.extra
    if extra is None or extra.deadline_ms != due_ms:
        return
    extra.deadline_timer = None
    if job.state in EXPIRED:
        _end_waiting(state, job, "deadline", "total_timeout_seconds passed", effects)
    elif job.state == lifecycle.RUNNING:
        effects.jobs_overdue.append((job.id, job.attempt))


def _end_waiting(
    state: State, job: Job, error_type: str, message: str, effects: Effects
) -> None:
    effects.jobs_withdrawn.append(job)
    state.timers.release(job)
    finished = Finished(job, state.now_ms, None, error_type, message)
    state.bury(job, finished, effects)


_JOB_TIMERS = {
    DUE: _job_due,
    OVERDUE: _job_overdue,
    EXPIRE: _job_expired,
    DEADLINE: _job_deadline,
}
