"""Jobs before they run: submission and cancellation."""

from __future__ import annotations

from cluster.machine import lifecycle, unique
from cluster.machine.commands import (
    ON_CONFLICT_REJECT,
    ON_CONFLICT_REPLACE,
    CancelJobs,
    JobGroup,
    SubmitJobs,
)
from cluster.machine.effects import Effects, Finished
from cluster.machine.registry import reduces
from cluster.machine.results import PerJob, Rejected, Result, Submitted
from cluster.machine.state import State
from cluster.machine.tables import Job, JobExtra
from cluster.machine.timers import DEADLINE, DUE, EXPIRE

CANCEL = lifecycle.transitions("cancel")


@reduces(SubmitJobs)
def submit_jobs(state: State, command: SubmitJobs, effects: Effects) -> Result:
    if command.request_key:
        answered = unique.find_request(state, command)
        if answered is not None:
            return answered
    first = state.next_job_id
    ids: list[int] | None = None
    for group in command.groups:
        if group.unique_keys is None:
            created = create_group(state, group, effects)
            if ids is not None:
                ids.extend(created)
        else:
            if ids is None:
                ids = list(range(first, state.next_job_id))
            ids.extend(_create_unique(state, group, effects))
    result = Submitted(first, state.next_job_id - first, ids)
    if command.request_key:
        unique.remember_request(state, command, result)
    return result


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
        _bound_waiting(state, group, ids)
    return ids


def _bound_waiting(state: State, group: JobGroup, ids: range) -> None:
    """Attach the timers that end jobs which wait or live too long."""
    expire = state.timers.add(group.expires_at_ms, EXPIRE, ids) if group.expires_at_ms else None
    deadline = state.timers.add(group.deadline_ms, DEADLINE, ids) if group.deadline_ms else None
    for job_id in ids:
        extra = extra_of(state.tables.jobs[job_id])
        extra.expires_at_ms, extra.expire_timer = group.expires_at_ms, expire
        extra.deadline_ms, extra.deadline_timer = group.deadline_ms, deadline


def extra_of(job: Job) -> JobExtra:
    if job.extra is None:
        job.extra = JobExtra()
    return job.extra


def _create_unique(state: State, group: JobGroup, effects: Effects) -> list[int]:
    """Create one by one, each under its unique key; 0 stands for a refused one."""
    assert group.unique_keys is not None
    ids = []
    for key, payload in zip(group.unique_keys, group.payloads, strict=True):
        ids.append(_create_one_unique(state, group, key, payload, effects))
    return ids


def _create_one_unique(
    state: State, group: JobGroup, key: str, payload: bytes, effects: Effects
) -> int:
    held = state.tables.uniques.get(key) if key else None
    if held is not None:
        if group.on_conflict == ON_CONFLICT_REJECT:
            return 0
        if group.on_conflict != ON_CONFLICT_REPLACE:
            return held.job_id
        old = state.tables.jobs.get(held.job_id)
        if old is not None:
            if old.state == lifecycle.RUNNING:
                return held.job_id  # a running job is not replaced under its worker's hands
            _cancel_one(state, old, "replaced", effects)
    one = JobGroup(group.spec, [payload], group.run_at_ms, group.expires_at_ms, group.deadline_ms)
    job_id = create_group(state, one, effects)[0]
    if key:
        extra = extra_of(state.tables.jobs[job_id])
        extra.unique_key, extra.unique_ttl_ms = key, group.unique_ttl_ms
        unique.hold_unique(state, key, job_id)
    return job_id


@reduces(CancelJobs)
def cancel_jobs(state: State, command: CancelJobs, effects: Effects) -> Result:
    codes = []
    for job_id in command.job_ids:
        job = state.tables.jobs.get(job_id)
        if job is None:
            known = 0 < job_id < state.next_job_id
            codes.append(int(Rejected.FINISHED if known else Rejected.UNKNOWN_JOB))
            continue
        _cancel_one(state, job, command.reason, effects)
        codes.append(0)
    return PerJob(codes)


def _cancel_one(state: State, job: Job, reason: str, effects: Effects) -> None:
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
