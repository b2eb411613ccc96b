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
from cluster.machine.effects import Effects
from cluster.machine.jobs import cancel_one, create_group, extra_of
from cluster.machine.registry import reduces
from cluster.machine.results import PerJob, Rejected, Result, Submitted
from cluster.machine.state import NO_JOBS, State


@reduces(SubmitJobs)
def submit_jobs(state: State, command: SubmitJobs, effects: Effects) -> Result:
    state.new_jobs = NO_JOBS
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
    state.new_jobs = range(first, state.next_job_id)
    result = Submitted(first, len(state.new_jobs), ids)
    if command.request_key:
        unique.remember_request(state, command, result)
    return result


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
        old = state.tables.jobs.row(held.job_id)
        if old is not None:
            if old.state == lifecycle.RUNNING:
                return held.job_id  # a running job is not replaced under its worker's hands
            cancel_one(state, old, "replaced", effects)
    one = JobGroup(group.spec, [payload], group.run_at_ms, group.expires_at_ms, group.deadline_ms)
    job_id = create_group(state, one, effects)[0]
    if key:
        job = state.own(job_id)
        assert job is not None
        extra = extra_of(job)
        extra.unique_key, extra.unique_ttl_ms = key, group.unique_ttl_ms
        unique.hold_unique(state, key, job_id)
    return job_id


@reduces(CancelJobs)
def cancel_jobs(state: State, command: CancelJobs, effects: Effects) -> Result:
    codes = []
    for job_id, job in zip(command.job_ids, state.own_all(command.job_ids), strict=True):
        if job is None or lifecycle.is_finished(job.state):
            known = 0 < job_id < state.next_job_id
            codes.append(int(Rejected.FINISHED if known else Rejected.UNKNOWN_JOB))
            continue
        cancel_one(state, job, command.reason, effects)
        codes.append(0)
    return PerJob(codes)
