"""What must hold after every batch. Full scans: for tests and simulation only."""

from __future__ import annotations

from collections import Counter
from itertools import chain

from cluster.machine import lifecycle
from cluster.machine.blocks import PACK_FACTOR
from cluster.machine.invariants_schedules import check_schedules
from cluster.machine.state import State
from cluster.machine.tables import Job, JobExtra
from cluster.machine.timers import (
    BACKFILL,
    BLOCK_DUE,
    DEADLINE,
    DUE,
    EXPIRE,
    OVERDUE,
    SCHEDULE,
    STOP,
    TimerGroup,
)
from cluster.machine.unique import REQUEST, UNIQUE
from cluster.machine.workforce import Workforce
from cluster.timerwheel import Timer

PENDING = (lifecycle.SCHEDULED, lifecycle.READY)


def check(state: State) -> None:
    """Raise AssertionError, naming the row, if the state contradicts itself."""
    jobs = state.tables.jobs
    for job_id, job in chain(jobs.rows.items(), jobs.apart.items()):
        assert job.id == job_id < state.next_job_id, f"job {job_id}: wrong id"
        assert not lifecycle.is_finished(job.state), f"job {job_id}: finished but live"
        _check_job(state, job)
        if job.extra is not None:
            _check_extra(state, job, job.extra)
    _check_order(state)
    _check_blocks(state)
    _check_counts(state)
    _check_workers(state)
    _check_dead(state)
    _check_keys(state)
    _check_timers(state)
    check_schedules(state)


def _check_job(state: State, job: Job) -> None:
    name = f"job {job.id}"
    if job.state in (lifecycle.SCHEDULED, lifecycle.RETRYING):
        assert job.timer is not None, f"{name}: waits without a timer"
        assert job.timer.due_ms == job.run_at_ms > state.now_ms, f"{name}: due but not fired"
    elif job.state == lifecycle.READY:
        assert job.timer is None, f"{name}: ready with a timer"
        assert job.run_at_ms <= state.now_ms, f"{name}: ready before it is due"
    elif job.state == lifecycle.RUNNING:
        assert job.attempt > 0, f"{name}: running without an attempt"
        worker = state.tables.workers.get(job.worker_id)
        assert worker is not None, f"{name}: runs on a worker that is gone"
        assert job.id in worker.running, f"{name}: its worker does not know it"
    assert job.failures <= job.attempt, f"{name}: more failures than attempts"


def _check_extra(state: State, job: Job, extra: JobExtra) -> None:
    name = f"job {job.id}"
    if job.state == lifecycle.RUNNING:
        assert extra.expire_timer is None, f"{name}: was started and may still expire"
        if extra.deadline_ms and extra.deadline_timer is None:
            assert job.timer is None, f"{name}: its deadline passed and nobody will find it"
    elif extra.deadline_ms:
        assert extra.deadline_timer is not None, f"{name}: outlives its deadline"
    if extra.expire_timer is not None:
        assert extra.expire_timer.due_ms == extra.expires_at_ms, f"{name}: wrong expiry"
    elif extra.expires_at_ms:
        assert job.attempt > 0, f"{name}: never expires"
    if extra.deadline_timer is not None:
        assert extra.deadline_timer.due_ms == extra.deadline_ms, f"{name}: wrong deadline"
    if extra.stop_by_ms:
        assert job.state == lifecycle.RUNNING, f"{name}: stops and does not run"
        assert extra.stop_timer is not None, f"{name}: may stop whenever it likes"
        assert extra.stop_timer.due_ms == extra.stop_by_ms, f"{name}: stops at another time"
    if extra.unique_key:
        held = state.tables.uniques.get(extra.unique_key)
        assert held is not None and held.job_id == job.id, f"{name}: lost its unique key"


def _check_order(state: State) -> None:
    jobs = state.tables.jobs
    assert list(jobs.rows) == sorted(jobs.rows), "jobs stand out of order and are not known to"
    assert len(set(jobs)) == len(jobs), "a job is there twice"


def _check_blocks(state: State) -> None:
    jobs, end = state.tables.jobs, 0
    for block_id, block in jobs.blocks.items():
        name = f"block {block_id}"
        assert end <= block.id == block_id < block.end <= state.next_job_id, f"{name}: wrong ids"
        end = block.end
        assert block.live == len(list(block.ids())) > 0, f"{name}: counts {block.live}"
        assert block.live > block.packed // PACK_FACTOR, f"{name}: holds many that are gone"
        assert block.ends[0] == 0 and block.ends[-1] == len(block.payloads), f"{name}: payloads"
        if block.state == lifecycle.SCHEDULED:
            assert block.timer is not None, f"{name}: waits without a timer"
            assert block.timer.due_ms == block.run_at_ms > state.now_ms, f"{name}: due, not fired"
        else:
            assert block.state == lifecycle.READY, f"{name}: in state {block.state}"
            assert block.timer is None, f"{name}: ready with a timer"
            assert block.run_at_ms <= state.now_ms, f"{name}: ready before it is due"
        if block.extra is not None:
            _check_extra(state, block.look(next(block.ids())), block.extra)
        for row in (block.shown or {}).values():
            assert block.holds(row.id) and row.state in PENDING, f"{name}: shows a stranger"
    assert jobs.in_blocks == sum(block.live for block in jobs.blocks.values()), "jobs in blocks"


def _check_counts(state: State) -> None:
    tables = state.tables
    specs = Counter(id(job.kind) for job in tables.jobs.values())
    counts = Counter((job.kind.spec.queue, job.state) for job in tables.jobs.values())
    for spec, row in tables.specs.items():
        assert row.jobs == specs[id(row)] > 0, f"spec {spec.name}: counts {row.jobs}"
        assert row.queue is tables.queues[spec.queue], f"spec {spec.name}: queue of its own"
    assert len(specs) == len(tables.specs), "a live job points at a forgotten spec"
    per_queue = Counter(spec.queue for spec in tables.specs)
    for queue in tables.queues.values():
        name = queue.name
        assert queue.specs == per_queue[name], f"queue {name}: specs"
        assert queue.scheduled == counts[name, lifecycle.SCHEDULED], f"queue {name}: scheduled"
        assert queue.ready == counts[name, lifecycle.READY], f"queue {name}: ready"
        assert queue.retrying == counts[name, lifecycle.RETRYING], f"queue {name}: retrying"
        assert queue.running == counts[name, lifecycle.RUNNING], f"queue {name}: running"


def _check_workers(state: State) -> None:
    workforce = Workforce()
    for worker in state.tables.workers.values():
        workforce.add(worker.spec, worker.draining)
    assert workforce == state.tables.workforce, "workers are not counted right"
    for worker in state.tables.workers.values():
        for job_id in worker.running:
            held = state.tables.jobs.get(job_id)
            assert held is not None, f"worker {worker.id}: holds a job that is gone"
            assert held.worker_id == worker.id, f"worker {worker.id}: holds another's job"
            assert held.state == lifecycle.RUNNING, f"worker {worker.id}: holds a waiting job"


def _check_dead(state: State) -> None:
    for job_id, dead in state.tables.dead.items():
        assert dead.job.id == job_id, f"dead letter {job_id}: wrong id"
        assert job_id not in state.tables.jobs, f"job {job_id}: dead and live"
        assert dead.job.state == lifecycle.FAILED, f"job {job_id}: a dead letter in another state"
        assert dead.job.timer is None, f"job {job_id}: dead with a timer"


def _check_keys(state: State) -> None:
    tables = state.tables
    waiting = state.timers.keys_waiting()
    for key, unique in tables.uniques.items():
        live = tables.jobs.get(unique.job_id)
        if unique.expires_ms == 0:
            assert live is not None, f"unique key {key}: its job is gone"
            assert live.extra is not None, f"unique key {key}: its job does not know it"
            assert live.extra.unique_key == key, f"unique key {key}: its job has another"
        else:
            assert UNIQUE + key in waiting, f"unique key {key}: never expires"
    for key in tables.requests:
        assert REQUEST + key in waiting, f"request key {key}: never expires"


def _check_timers(state: State) -> None:
    """Every timer in the wheel is somebody's, and every group knows how many still want it."""
    wanted: Counter[Timer] = Counter()
    kinds: dict[Timer, int] = {}

    def want(timer: Timer | None, kind: int, jobs: int = 1) -> None:
        if timer is not None:
            wanted[timer] += jobs
            assert kinds.setdefault(timer, kind) == kind, "one timer for two purposes"

    for block in state.tables.jobs.blocks.values():
        want(block.timer, BLOCK_DUE)
        if block.extra is not None:
            want(block.extra.expire_timer, EXPIRE, block.live)
            want(block.extra.deadline_timer, DEADLINE, block.live)
    for job in state.tables.jobs.all_rows():
        want(job.timer, OVERDUE if job.state == lifecycle.RUNNING else DUE)
        if job.extra is not None:
            want(job.extra.expire_timer, EXPIRE)
            want(job.extra.deadline_timer, DEADLINE)
            want(job.extra.stop_timer, STOP)
    for row in state.tables.schedules.values():
        want(row.timer, SCHEDULE)
        assert row.timer is None or row.timer.due_ms == row.next_fire_ms, f"schedule {row.id}"
        for backfill in row.waiting.backfills.values() if row.waiting is not None else ():
            want(backfill.timer, BACKFILL)
    for timer, count in wanted.items():
        group = timer.payload
        assert isinstance(group, TimerGroup)
        assert group.live == count, f"a timer of kind {group.kind}: {group.live} of {count} live"
        assert group.kind == kinds[timer], f"a timer of kind {group.kind} is used as another"
    buckets = state.timers.key_buckets
    assert len(state.timers.wheel) == len(wanted) + buckets, "the wheel holds forgotten timers"
