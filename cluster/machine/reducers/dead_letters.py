"""Dead letters: failed jobs that wait for a person."""

from __future__ import annotations

from cluster.machine import lifecycle
from cluster.machine.commands import PurgeDead, RetryJobs
from cluster.machine.effects import Effects
from cluster.machine.jobs import changed_spec
from cluster.machine.registry import reduces
from cluster.machine.results import PerJob, Rejected, Result
from cluster.machine.state import State
from cluster.machine.tables import DeadJob, JobExtra, new_row
from cluster.machine.timers import DUE
from cluster.machine.unique import can_hold_again, hold_unique

REPLAY = lifecycle.transitions("replay")
REPLAY_LATER = lifecycle.transitions("replay_later")


@reduces(RetryJobs)
def retry_jobs(state: State, command: RetryJobs, effects: Effects) -> Result:
    codes = []
    for job_id in command.job_ids:
        dead = state.tables.dead.get(job_id)
        if dead is None:
            codes.append(int(_why_not_dead(state, job_id)))
            continue
        extra = dead.job.extra
        if extra is not None and not can_hold_again(state, extra, job_id):
            codes.append(int(Rejected.CONFLICT))
            continue
        _revive(state, dead, command, effects)
        codes.append(0)
    return PerJob(codes)


def _why_not_dead(state: State, job_id: int) -> Rejected:
    if 0 < job_id < state.next_job_id:
        return Rejected.NOT_DEAD
    return Rejected.UNKNOWN_JOB


def _revive(state: State, dead: DeadJob, command: RetryJobs, effects: Effects) -> None:
    """The same job lives again: its attempts go on counting, its failures start anew."""
    job, tables = new_row(dead.job), state.tables
    del tables.dead[job.id]
    state.totals.revived += 1
    kind = tables.intern(changed_spec(job.kind.spec, command.changes))
    kind.jobs += 1
    job.kind = kind
    if command.changes.payload is not None:
        job.payload = command.changes.payload
    job.failures = 0
    job.worker_id = 0
    job.started_ms = 0
    if job.extra is not None:
        job.extra = _extra_anew(job.extra)
        if job.extra.unique_key:
            hold_unique(state, job.extra.unique_key, job.id)
        if job.extra.schedule_id:
            tables.add_run(job.extra.schedule_id, job.id)
    tables.jobs.put_apart(job)
    if command.run_at_ms > state.now_ms:
        job.state = REPLAY_LATER[job.state]
        job.run_at_ms = command.run_at_ms
        job.timer = state.timers.add(command.run_at_ms, DUE, [job.id])
    else:
        job.state = REPLAY[job.state]
        job.run_at_ms = state.now_ms
        effects.jobs_ready.append(job)
    tables.count(job, job.state, +1)


def _extra_anew(extra: JobExtra) -> JobExtra:
    """Bounds of the first life have passed; a person decided that it shall run all the same."""
    return JobExtra(
        extra.unique_key,
        extra.unique_ttl_ms,
        extra.schedule_id,
        extra.nominal_ms,
        attempts=list(extra.attempts) if extra.attempts is not None else None,
    )


@reduces(PurgeDead)
def purge_dead(state: State, command: PurgeDead, effects: Effects) -> Result:
    codes = []
    for job_id in command.job_ids:
        gone = state.tables.dead.pop(job_id, None)
        codes.append(0 if gone is not None else int(_why_not_dead(state, job_id)))
    return PerJob(codes)
