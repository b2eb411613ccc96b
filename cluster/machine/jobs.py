"""Moves of jobs that several commands make: creation, cancellation."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.machine import lifecycle
from cluster.machine.commands import JobChanges, JobGroup
from cluster.machine.effects import Effects, Finished
from cluster.machine.model import JobSpec
from cluster.machine.state import State
from cluster.machine.tables import Job, JobExtra
from cluster.machine.timers import DEADLINE, DUE, EXPIRE

CANCEL = lifecycle.transitions("cancel")


def create_group(state: State, group: JobGroup, effects: Effects) -> range:
    """Create all jobs of a group; they share a spec, a due time and one timer."""
    tables, now_ms = state.tables, state.now_ms
    first, count = state.next_job_id, len(group.payloads)
    ids = range(first, first + count)
    if not count:
        return ids
    kind = tables.intern(group.spec)
    state.next_job_id = first + count
    state.totals.submitted += count
    kind.jobs += count
    jobs = tables.jobs
    if group.run_at_ms > now_ms:
        timer = state.timers.add(group.run_at_ms, DUE, ids)
        kind.queue.scheduled += count
        due_ms, waiting = group.run_at_ms, lifecycle.SCHEDULED
        for job_id, payload in zip(ids, group.payloads, strict=True):
            jobs[job_id] = Job(job_id, kind, payload, waiting, now_ms, due_ms, 0, 0, 0, 0, timer)
    else:
        kind.queue.ready += count
        ready = effects.jobs_ready
        for job_id, payload in zip(ids, group.payloads, strict=True):
            job = jobs[job_id] = Job(job_id, kind, payload, lifecycle.READY, now_ms, now_ms)
            ready.append(job)
    if group.expires_at_ms or group.deadline_ms:
        bound_waiting(state, group.expires_at_ms, group.deadline_ms, ids)
    return ids


def create_run(
    state: State, spec: JobSpec, payload: bytes, schedule_id: str, nominal_ms: int, effects: Effects
) -> Job:
    """As `create_group` for one job that is due, unrolled: thousands of schedules may be due in the
    same second."""
    tables, now_ms, job_id = state.tables, state.now_ms, state.next_job_id
    kind = tables.intern(spec)
    state.next_job_id = job_id + 1
    state.totals.submitted += 1
    kind.jobs += 1
    kind.queue.ready += 1
    extra = JobExtra("", 0, schedule_id, nominal_ms)
    job = Job(job_id, kind, payload, lifecycle.READY, now_ms, now_ms, extra=extra)
    tables.jobs[job_id] = job
    tables.add_run(schedule_id, job_id)
    effects.jobs_ready.append(job)
    return job


def bound_waiting(state: State, expires_at_ms: int, deadline_ms: int, ids: Sequence[int]) -> None:
    """Attach the timers that end jobs which wait or live too long."""
    expire = state.timers.add(expires_at_ms, EXPIRE, ids) if expires_at_ms else None
    deadline = state.timers.add(deadline_ms, DEADLINE, ids) if deadline_ms else None
    for job_id in ids:
        extra = extra_of(state.tables.jobs[job_id])
        extra.expires_at_ms, extra.expire_timer = expires_at_ms, expire
        extra.deadline_ms, extra.deadline_timer = deadline_ms, deadline


def extra_of(job: Job) -> JobExtra:
    if job.extra is None:
        job.extra = JobExtra()
    return job.extra


def changed_spec(spec: JobSpec, changes: JobChanges) -> JobSpec:
    return JobSpec(
        spec.name,
        changes.queue if changes.queue is not None else spec.queue,
        changes.priority if changes.priority is not None else spec.priority,
        changes.max_retries if changes.max_retries is not None else spec.max_retries,
        spec.retry,
        changes.timeout_ms if changes.timeout_ms is not None else spec.timeout_ms,
        spec.tags,
    )


def cancel_one(state: State, job: Job, reason: str, effects: Effects) -> None:
    """Cancelled at once, also when running: a late answer is fenced off as stale."""
    after = CANCEL[job.state]
    if job.state == lifecycle.RUNNING:
        effects.jobs_stopped.append((job.worker_id, job.id, job.attempt))
        state.leave_worker(job)
    else:
        effects.jobs_withdrawn.append(job)
        state.timers.release(job)
    state.totals.cancelled += 1
    finished = Finished(job, state.now_ms, None, "cancelled", reason)
    state.finish(job, after, finished, effects)
