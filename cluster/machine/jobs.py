"""Moves of jobs that several commands make: creation, cancellation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from cluster.machine import blocks, lifecycle
from cluster.machine.commands import JobChanges, JobGroup
from cluster.machine.effects import Effects, Finished
from cluster.machine.model import JobSpec
from cluster.machine.state import State
from cluster.machine.tables import Block, Job, JobExtra, SpecRow
from cluster.machine.timers import BLOCK_DUE, DEADLINE, DUE, EXPIRE

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
    is_due = group.run_at_ms <= now_ms
    waiting = lifecycle.READY if is_due else lifecycle.SCHEDULED
    tables.count_kind(kind, waiting, count)
    due_ms = now_ms if is_due else group.run_at_ms
    made: list[Job | Block] = []
    if count < blocks.BLOCK_JOBS_MIN:
        made += _add_rows(state, kind, first, group.payloads, waiting, due_ms)
    else:
        made += _add_pieces(state, kind, first, group.payloads, waiting, due_ms)
    if is_due:
        effects.jobs_ready += made
    else:
        _wait(state, due_ms, made)
    if group.expires_at_ms or group.deadline_ms:
        bound_waiting(state, group.expires_at_ms, group.deadline_ms, made, ids)
    return ids


def _add_pieces(
    state: State, kind: SpecRow, first: int, payloads: list[bytes], waiting: int, due_ms: int
) -> Iterator[Job | Block]:
    """Blocks of bounded size; what is left over, or too large, as rows."""
    lengths = list(map(len, payloads))
    for start, end in pairwise(blocks.cuts(lengths)):
        piece = payloads[start:end]
        if len(piece) < blocks.BLOCK_JOBS_MIN:
            yield from _add_rows(state, kind, first + start, piece, waiting, due_ms)
            continue
        block = Block(
            first + start, kind, b"".join(piece), blocks.ends_of(lengths[start:end]), waiting,
            state.now_ms, due_ms, end - start, end - start,
        )  # fmt: skip
        state.tables.jobs.add_block(block)
        yield block


def _add_rows(
    state: State, kind: SpecRow, first: int, payloads: list[bytes], waiting: int, due_ms: int
) -> list[Job]:
    now_ms, table = state.now_ms, state.tables.jobs
    rows = [
        Job(job_id, kind, payload, waiting, now_ms, due_ms)
        for job_id, payload in enumerate(payloads, first)
    ]
    for row in rows:
        table.add(row)
    return rows


def _wait(state: State, due_ms: int, made: list[Job | Block]) -> None:
    """One timer for the rows and one for the blocks."""
    for kind, type_ in ((DUE, Job), (BLOCK_DUE, Block)):
        members = [entry for entry in made if isinstance(entry, type_)]
        if members:
            timer = state.timers.add(due_ms, kind, [entry.id for entry in members])
            for entry in members:
                entry.timer = timer


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
    tables.jobs.add(job)
    tables.add_run(schedule_id, job_id)
    effects.jobs_ready.append(job)
    return job


def bound_waiting(
    state: State,
    expires_at_ms: int,
    deadline_ms: int,
    made: Sequence[Job | Block],
    ids: Sequence[int],
) -> None:
    """Attach the timers that end jobs which wait or live too long; `made` holds those of `ids`."""
    expire = state.timers.add(expires_at_ms, EXPIRE, ids) if expires_at_ms else None
    deadline = state.timers.add(deadline_ms, DEADLINE, ids) if deadline_ms else None
    for entry in made:
        extra = extra_of(entry)
        extra.expires_at_ms, extra.expire_timer = expires_at_ms, expire
        extra.deadline_ms, extra.deadline_timer = deadline_ms, deadline


def extra_of(job: Job | Block) -> JobExtra:
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
