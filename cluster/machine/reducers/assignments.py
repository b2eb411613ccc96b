"""Jobs in workers' hands: assign, complete, fail, release. The hot path.

The fence is `attempt`: it grows with every assignment, and an answer that names another one than
the running is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, compress, groupby, repeat
from operator import attrgetter

import msgspec

from cluster.machine import lifecycle
from cluster.machine.commands import (
    AssignJobs,
    AssignMany,
    AssignNew,
    CompleteJobs,
    CompleteMany,
    FailJobs,
    JobFailure,
    ReleaseJobs,
)
from cluster.machine.effects import Effects, Finished
from cluster.machine.jobs import extra_of
from cluster.machine.model import Attempt
from cluster.machine.registry import reduces
from cluster.machine.results import NONE_REFUSED, Given, PerJob, Rejected, Result, Settled
from cluster.machine.state import State
from cluster.machine.tables import Block, Job, JobExtra, SpecRow
from cluster.machine.timers import DUE, OVERDUE
from cluster.machine.unique import release_unique
from cluster.timerwheel import Timer

# Workers enforce the timeout themselves; only one that does not answer at all lets this pass.
OVERDUE_GRACE_MS = 5_000
ATTEMPTS_KEPT_MAX = 50
LOG_CHARACTERS_KEPT_MAX = 65_536  # a job, all its attempts

ASSIGN = lifecycle.transitions("assign")
RELEASE = lifecycle.transitions("release")
RETRY = lifecycle.transitions("retry")
FAIL = lifecycle.transitions("fail")
COMPLETE = lifecycle.transitions("complete")
CANCEL = lifecycle.transitions("cancel")

_id_of, _kind_of, _timer_of = attrgetter("id"), attrgetter("kind"), attrgetter("timer")


@reduces(AssignJobs)
def assign_jobs(state: State, command: AssignJobs, effects: Effects) -> Result:
    worker, ids = state.tables.workers.get(command.worker_id), command.job_ids
    if worker is None or worker.draining:
        return Rejected.UNKNOWN_WORKER
    started, refused = _start_all(state, ids, [command.worker_id] * len(ids))
    worker.running.update(dict.fromkeys(map(_id_of, started)))
    effects.jobs_assigned += started
    return Settled(refused) if refused else NONE_REFUSED


@reduces(AssignMany)
def assign_many(state: State, command: AssignMany, effects: Effects) -> Result:
    workers, ids = state.tables.workers, command.job_ids
    holders = _by_job(command.worker_ids, command.counts)
    away = [i for i in command.worker_ids if (row := workers.get(i)) is None or row.draining]
    left_over: list[int] = []
    if away:
        takes = [holder not in away for holder in holders]
        left_over = [job_id for job_id, is_taken in zip(ids, takes, strict=True) if not is_taken]
        ids, holders = list(compress(ids, takes)), list(compress(holders, takes))
    started, refused = _start_all(state, ids, holders)
    for job in started:
        workers[job.worker_id].running[job.id] = None
    effects.jobs_assigned += started
    return Settled(left_over + refused) if left_over or refused else NONE_REFUSED


def _by_job(worker_ids: Sequence[int], counts: Sequence[int]) -> list[int]:
    """The worker of each job."""
    return list(chain.from_iterable(map(repeat, worker_ids, counts)))


def _start_all(
    state: State, ids: Sequence[int], holders: Sequence[int]
) -> tuple[list[Job], list[int]]:
    """Begin the next attempt of each job at the worker beside it. Returns the rows of those that
    began, whose places at their workers are still to be taken, and the ids of the rest."""
    table, at, watch = state.tables.jobs, 0, _Watch(state)
    started: list[Job] = []
    refused: list[int] = []
    while at < len(ids):
        job = table.row(ids[at])
        if job is None:
            block = table.block_of(ids[at])
            if block is not None and block.state in ASSIGN:
                run = block.run(ids, at)
                started += _start_run(state, block, run, holders[at : at + len(run)], watch)
                at += len(run)
                continue
        if job is not None and job.state in ASSIGN:
            _start(state, job, holders[at], watch)
            started.append(job)
        else:
            refused.append(ids[at])
        at += 1
    return started, refused


class _Watch:
    """One overdue timer for all jobs of an assignment that share a timeout."""

    __slots__ = ("_by_timeout", "_state")

    def __init__(self, state: State) -> None:
        self._state = state
        self._by_timeout: dict[int, Timer] = {}

    def timer(self, kind: SpecRow, job_ids: range) -> Timer:
        timeout_ms, timers = kind.spec.timeout_ms, self._state.timers
        timer = self._by_timeout.get(timeout_ms)
        if timer is not None:
            timers.join(timer, job_ids)
            return timer
        due_ms = self._state.now_ms + timeout_ms + OVERDUE_GRACE_MS
        timer = self._by_timeout[timeout_ms] = timers.add(due_ms, OVERDUE, job_ids)
        return timer


def _start(state: State, job: Job, worker_id: int, watch: _Watch) -> None:
    """Begin the next attempt of a job."""
    job.state = ASSIGN[job.state]
    job.attempt += 1
    job.worker_id = worker_id
    job.started_ms = state.now_ms
    job.timer = watch.timer(job.kind, range(job.id, job.id + 1))
    queue = job.kind.queue
    queue.ready -= 1
    queue.running += 1
    if job.extra is not None:
        _stop_expiring(state, job.extra)


def _start_run(
    state: State, block: Block, ids: list[int], holders: Sequence[int], watch: _Watch
) -> list[Job]:
    """Begin the first attempt of jobs that follow each other in a block."""
    count, queue = len(ids), block.kind.queue
    timer = watch.timer(block.kind, range(ids[0], ids[0] + count))
    jobs = state.take_out(block, block.start(ids, holders, state.now_ms, timer))
    queue.ready -= count
    queue.running += count
    if block.extra is not None:
        for job in jobs:
            if job.extra is not None:
                _stop_expiring(state, job.extra)
    return jobs


def _stop_expiring(state: State, extra: JobExtra) -> None:
    if extra.expire_timer is not None:
        state.timers.drop(extra.expire_timer)
        extra.expire_timer = None


@reduces(AssignNew)
def assign_new(state: State, command: AssignNew, effects: Effects) -> Result:
    new = state.new_jobs[: command.count]
    result = assign_jobs(state, AssignJobs(command.worker_id, list(new)), effects)
    if not isinstance(result, Settled):
        return result
    state.new_jobs = state.new_jobs[command.count :]
    refused = set(result.refused)
    return Given([job_id for job_id in new if job_id not in refused])


@reduces(CompleteJobs)
def complete_jobs(state: State, command: CompleteJobs, effects: Effects) -> Result:
    holders = [command.worker_id] * len(command.job_ids)
    refused = _complete(state, command, holders, effects)
    return Settled([command.job_ids[place] for place in refused]) if refused else NONE_REFUSED


@reduces(CompleteMany)
def complete_many(state: State, command: CompleteMany, effects: Effects) -> Result:
    holders = _by_job(command.worker_ids, command.counts)
    refused = _complete(state, command, holders, effects)
    if not refused:
        return NONE_REFUSED
    codes = [0] * len(holders)
    for place in refused:
        codes[place] = Rejected.STALE_ATTEMPT
    return PerJob(codes)


def _complete(
    state: State, command: CompleteJobs | CompleteMany, holders: list[int], effects: Effects
) -> list[int]:
    """Book successes of the workers beside the jobs. Returns the places of those refused."""
    tables, timers, now_ms = state.tables, state.timers, state.now_ms
    rows, apart, workers = tables.jobs.rows, tables.jobs.apart, tables.workers
    outputs, logs = command.outputs, command.logs
    finished = effects.jobs_finished
    refused: list[int] = []
    done: list[Job] = []
    for place, (job_id, attempt, by) in enumerate(
        zip(command.job_ids, command.attempts, holders, strict=True)
    ):
        job = apart.get(job_id) or rows.get(job_id)
        if (
            job is None
            or job.attempt != attempt
            or job.state not in COMPLETE
            or (by and job.worker_id != by)
        ):
            refused.append(place)
            continue
        # The moves of State.leave_worker and State.finish, unrolled: this loop is the hot path.
        job.state = lifecycle.COMPLETED
        holder = workers.get(job.worker_id)
        if holder is not None:
            holder.running.pop(job_id, None)
        extra = job.extra
        if extra is not None:
            timers.release_extra(extra)
            if extra.unique_key:
                release_unique(state, extra, job_id)
            if extra.schedule_id:
                state.runs_ended.append(job)
        if apart.pop(job_id, None) is None:
            del rows[job_id]
        done.append(job)
        output = outputs[place] if outputs is not None else None
        log = (logs[place] or "") if logs is not None else ""
        finished.append(Finished(job, now_ms, output, "", "", log))
    _book_done(state, done)
    return refused


def _book_done(state: State, jobs: list[Job]) -> None:
    """What ended jobs that follow each other share is booked once: neighbours mostly share it."""
    state.totals.completed += len(jobs)
    for timer, run in groupby(jobs, key=_timer_of):
        if timer is not None:
            state.timers.drop(timer, len(list(run)))
    for kind, run in groupby(jobs, key=_kind_of):
        count = len(list(run))
        kind.queue.running -= count
        kind.jobs -= count
        if not kind.jobs:
            state.tables.forget_spec(kind)


@reduces(FailJobs)
def fail_jobs(state: State, command: FailJobs, effects: Effects) -> Result:
    refused = []
    for failure in command.failures:
        job = state.tables.jobs.row(failure.job_id)
        if not _holds(job, failure.attempt, command.worker_id):
            refused.append(failure.job_id)
            continue
        assert job is not None
        end_attempt(state, job, failure, effects)
    return Settled(refused) if refused else NONE_REFUSED


def _holds(job: Job | None, attempt: int, worker_id: int) -> bool:
    return (
        job is not None
        and job.state == lifecycle.RUNNING
        and job.attempt == attempt
        and (not worker_id or job.worker_id == worker_id)
    )


def end_attempt(state: State, job: Job, failure: JobFailure, effects: Effects) -> None:
    """A failed attempt: retried at the decided time, or dead, also when that time would come
    after the job's deadline. One that was asked to stop has stopped: it is cancelled."""
    record_attempt(
        state, job, failure.outcome, failure.error_type, failure.error_message, failure.log
    )
    state.leave_worker(job)
    if _was_asked_to_stop(job):
        _end_as_asked(state, job, failure.error_message, failure.log, effects)
        return
    job.failures += 1
    retry_at_ms = max(failure.retry_at_ms, state.now_ms)
    if not failure.retry_at_ms or _is_past_deadline(job, retry_at_ms):
        finished = Finished(
            job, state.now_ms, None, failure.error_type, failure.error_message, failure.log
        )
        state.bury(job, finished, effects)
        return
    state.totals.retries += 1
    effects.jobs_retrying += 1
    job = state.take_back(job)
    job.run_at_ms = retry_at_ms
    if retry_at_ms <= state.now_ms:
        state.make_ready(job, RELEASE[job.state], effects)
        return
    state.tables.count(job, job.state, -1)
    job.state = RETRY[job.state]
    state.tables.count(job, job.state, +1)
    job.timer = state.timers.add(retry_at_ms, DUE, [job.id])


def _is_past_deadline(job: Job, at_ms: int) -> bool:
    return job.extra is not None and 0 < job.extra.deadline_ms <= at_ms


def _was_asked_to_stop(job: Job) -> bool:
    return job.extra is not None and job.extra.stop_by_ms > 0


def _end_as_asked(state: State, job: Job, message: str, log: str, effects: Effects) -> None:
    """The worker says that the run stopped, in whatever words."""
    state.totals.cancelled += 1
    text = message or "stopped for a newer occurrence of its schedule"
    finished = Finished(job, state.now_ms, None, "cancelled", text, log)
    state.finish(job, CANCEL[job.state], finished, effects)


def record_attempt(
    state: State, job: Job, outcome: str, error_type: str, error_message: str, log: str
) -> None:
    """Keep what happened for the timeline; the first attempts make room beyond the bound."""
    extra = extra_of(job)
    if extra.attempts is None:
        extra.attempts = []
    extra.attempts.append(
        Attempt(
            job.attempt, job.worker_id, job.started_ms, state.now_ms,
            outcome, error_type, error_message, log,
        )
    )  # fmt: skip
    if len(extra.attempts) > ATTEMPTS_KEPT_MAX:
        del extra.attempts[1]  # the first tells how it began
    if log:
        _bound_logs(extra.attempts)


def _bound_logs(attempts: list[Attempt]) -> None:
    """Logs lie in every node's memory: the newest stay, up to the bound, older ones are emptied."""
    room = LOG_CHARACTERS_KEPT_MAX
    for position in range(len(attempts) - 1, -1, -1):
        attempt = attempts[position]
        room -= len(attempt.log)
        if room < 0 and attempt.log and position < len(attempts) - 1:
            attempts[position] = msgspec.structs.replace(attempt, log="")


@reduces(ReleaseJobs)
def release_jobs(state: State, command: ReleaseJobs, effects: Effects) -> Result:
    refused = []
    for job_id, attempt in zip(command.job_ids, command.attempts, strict=True):
        job = state.tables.jobs.row(job_id)
        if not _holds(job, attempt, command.worker_id):
            refused.append(job_id)
            continue
        assert job is not None
        hand_back(state, job, effects)
    return Settled(refused) if refused else NONE_REFUSED


def hand_back(state: State, job: Job, effects: Effects) -> None:
    """The attempt ends without counting as a failure."""
    record_attempt(state, job, "released", "", "", "")
    state.leave_worker(job)
    if _was_asked_to_stop(job):
        _end_as_asked(state, job, "", "", effects)
        return
    if _is_past_deadline(job, state.now_ms):
        finished = Finished(job, state.now_ms, None, "deadline", "total_timeout_seconds passed")
        state.bury(job, finished, effects)
        return
    job = state.take_back(job)
    job.run_at_ms = state.now_ms
    state.make_ready(job, RELEASE[job.state], effects)
