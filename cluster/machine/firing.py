"""What happens when a replicated timer is due. Runs at the start of every batch, on every node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.machine import lifecycle
from cluster.machine.effects import Effects, Finished
from cluster.machine.overlap import stop_overdue, ticks_due
from cluster.machine.state import State
from cluster.machine.tables import Block, Job
from cluster.machine.timers import (
    BACKFILL,
    BLOCK_DUE,
    DEADLINE,
    DUE,
    EXPIRE,
    KEYS,
    OVERDUE,
    SCHEDULE,
    STOP,
)
from cluster.machine.unique import forget_keys

WAKE = lifecycle.transitions("due")
EXPIRED = lifecycle.transitions("expire")


def fire(state: State, due_ms: int, kind: int, members: list[Any], effects: Effects) -> None:
    """Fire all timers of one kind and moment. A member whose row waits no more is skipped."""
    _TIMERS[kind](state, due_ms, members, effects)


def _keys_due(state: State, due_ms: int, members: list[Any], effects: Effects) -> None:
    forget_keys(state, due_ms)


def _schedules_due(state: State, due_ms: int, members: list[str], effects: Effects) -> None:
    for schedule_id in members:
        row = state.tables.schedules.get(schedule_id)
        if row is not None and row.next_fire_ms == due_ms and row.timer is not None:
            row.timer = None
            state.due_schedules[schedule_id] = None
            effects.schedules_due.append((schedule_id, due_ms))


def _blocks_due(state: State, due_ms: int, members: list[int], effects: Effects) -> None:
    """A thousand jobs in one step."""
    for block_id in members:
        block: Block | None = state.tables.jobs.blocks.get(block_id)
        if block is None or block.timer is None or block.timer.due_ms != due_ms:
            continue
        state.tables.count_kind(block.kind, block.state, -block.live)
        block.timer = None
        block.state = WAKE[block.state]
        state.tables.count_kind(block.kind, block.state, block.live)
        effects.jobs_ready.append(block)


def _jobs_due(state: State, due_ms: int, members: list[int], effects: Effects) -> None:
    """As `State.make_ready`, unrolled: a million jobs may be due at midnight, and no heartbeat
    leaves the node meanwhile."""
    jobs, ready = state.tables.jobs, effects.jobs_ready
    for job_id in members:
        job = jobs.row(job_id)
        if job is None or job.state not in WAKE:
            continue
        timer = job.timer
        if timer is None or timer.due_ms != due_ms:
            continue
        queue = job.kind.queue
        if job.state == lifecycle.SCHEDULED:
            queue.scheduled -= 1
        else:
            queue.retrying -= 1
        queue.ready += 1
        job.timer = None
        job.state = WAKE[job.state]
        ready.append(job)


def _jobs_overdue(state: State, due_ms: int, members: list[int], effects: Effects) -> None:
    """The leader decides what becomes of them; the machine only tells."""
    for job_id in members:
        job = state.tables.jobs.row(job_id)
        if (
            job is not None
            and job.state == lifecycle.RUNNING
            and job.timer is not None
            and job.timer.due_ms == due_ms
        ):
            job.timer = None
            effects.jobs_overdue.append((job.id, job.attempt))


def _jobs_expired(state: State, due_ms: int, members: list[int], effects: Effects) -> None:
    for job in state.own_all(members):
        if job is None or job.extra is None or job.extra.expires_at_ms != due_ms:
            continue
        job.extra.expire_timer = None
        if job.state in EXPIRED and job.attempt == 0:
            _end_waiting(state, job, "expired", "nobody started it before expires_at", effects)


def _jobs_deadline(state: State, due_ms: int, members: list[int], effects: Effects) -> None:
    for job in state.own_all(members):
        if job is None or job.extra is None or job.extra.deadline_ms != due_ms:
            continue
        job.extra.deadline_timer = None
        if job.state in EXPIRED:
            _end_waiting(state, job, "deadline", "total_timeout_seconds passed", effects)
        elif job.state == lifecycle.RUNNING:
            # Without its timer it counts as overdue, so that a new leader finds it.
            state.timers.release(job)
            effects.jobs_overdue.append((job.id, job.attempt))


def _end_waiting(state: State, job: Job, error_type: str, message: str, effects: Effects) -> None:
    effects.jobs_withdrawn.append(job)
    state.timers.release(job)
    finished = Finished(job, state.now_ms, None, error_type, message)
    state.bury(job, finished, effects)


_TIMERS: dict[int, Callable[[State, int, list[Any], Effects], None]] = {
    BLOCK_DUE: _blocks_due,
    DUE: _jobs_due,
    OVERDUE: _jobs_overdue,
    EXPIRE: _jobs_expired,
    DEADLINE: _jobs_deadline,
    SCHEDULE: _schedules_due,
    KEYS: _keys_due,
    BACKFILL: ticks_due,
    STOP: stop_overdue,
}
