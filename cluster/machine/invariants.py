"""What must hold after every batch. Full scans: for tests and simulation only."""

from __future__ import annotations

from collections import Counter

from cluster.machine import lifecycle
from cluster.machine.state import State
from cluster.machine.tables import Job


def check(state: State) -> None:
    """Raise AssertionError, naming the row, if the state contradicts itself."""
    tables = state.tables
    specs: Counter[int] = Counter()
    counts: Counter[tuple[str, int]] = Counter()
    for job_id, job in tables.jobs.items():
        assert job.id == job_id < state.next_job_id, f"job {job_id}: wrong id"
        assert not lifecycle.is_finished(job.state), f"job {job_id}: finished but live"
        specs[id(job.kind)] += 1
        counts[job.kind.spec.queue, job.state] += 1
        _check_job(state, job)
    for row in tables.specs.values():
        assert row.jobs == specs[id(row)] > 0, f"spec {row.spec.name}: counts {row.jobs}"
    for queue in tables.queues.values():
        name = queue.name
        assert queue.scheduled == counts[name, lifecycle.SCHEDULED], f"queue {name}: scheduled"
        assert queue.ready == counts[name, lifecycle.READY], f"queue {name}: ready"
        assert queue.retrying == counts[name, lifecycle.RETRYING], f"queue {name}: retrying"
        assert queue.running == counts[name, lifecycle.RUNNING], f"queue {name}: running"
    for worker in tables.workers.values():
        for job_id in worker.running:
            held = tables.jobs.get(job_id)
            assert held is not None, f"worker {worker.id}: holds a job that is gone"
            assert held.worker_id == worker.id, f"worker {worker.id}: holds another's job"
    for job_id, dead in tables.dead.items():
        assert job_id not in tables.jobs, f"job {job_id}: dead and live"
        assert dead.job.state == lifecycle.FAILED, f"job {job_id}: a dead letter in another state"
    for key, unique in tables.uniques.items():
        live = tables.jobs.get(unique.job_id)
        if unique.expires_ms == 0:
            assert live is not None, f"unique key {key}: its job is gone"


def _check_job(state: State, job: Job) -> None:
    name = f"job {job.id}"
    if job.state in (lifecycle.SCHEDULED, lifecycle.RETRYING):
        assert job.timer is not None, f"{name}: waits without a timer"
        assert job.timer.due_ms == job.run_at_ms > state.now_ms, f"{name}: due but not fired"
    elif job.state == lifecycle.READY:
        assert job.timer is None, f"{name}: ready with a timer"
    elif job.state == lifecycle.RUNNING:
        assert job.attempt > 0, f"{name}: running without an attempt"
        worker = state.tables.workers.get(job.worker_id)
        assert worker is not None, f"{name}: runs on a worker that is gone"
        assert job.id in worker.running, f"{name}: its worker does not know it"
    assert job.failures <= job.attempt, f"{name}: more failures than attempts"
