"""Workers: who may be given jobs. Heartbeats stay out of the log; only consequences come here."""

from __future__ import annotations

from cluster.machine.commands import (
    DrainWorker,
    JobFailure,
    RegisterWorker,
    RemoveWorker,
    UpdateWorker,
)
from cluster.machine.effects import Effects
from cluster.machine.reducers.assignments import end_attempt, hand_back
from cluster.machine.registry import reduces
from cluster.machine.results import DONE, Registered, Rejected, Result
from cluster.machine.state import State
from cluster.machine.tables import Job, WorkerRow


@reduces(RegisterWorker)
def register_worker(state: State, command: RegisterWorker, effects: Effects) -> Result:
    worker_id = state.next_worker_id
    state.next_worker_id += 1
    state.tables.add_worker(WorkerRow(worker_id, command.spec, state.now_ms, {}))
    effects.workers_changed.append(worker_id)
    return Registered(worker_id)


@reduces(UpdateWorker)
def update_worker(state: State, command: UpdateWorker, effects: Effects) -> Result:
    worker = state.tables.workers.get(command.worker_id)
    if worker is None:
        return Rejected.UNKNOWN_WORKER
    # It goes on draining, if it was: nobody took that order back.
    state.tables.change_worker(worker, command.spec, worker.draining)
    effects.workers_changed.append(worker.id)
    return Registered(worker.id)


@reduces(DrainWorker)
def drain_worker(state: State, command: DrainWorker, effects: Effects) -> Result:
    worker = state.tables.workers.get(command.worker_id)
    if worker is None:
        return Rejected.UNKNOWN_WORKER
    state.tables.change_worker(worker, worker.spec, True)
    effects.workers_changed.append(worker.id)
    return DONE


@reduces(RemoveWorker)
def remove_worker(state: State, command: RemoveWorker, effects: Effects) -> Result:
    worker = state.tables.workers.get(command.worker_id)
    if worker is None:
        return Rejected.UNKNOWN_WORKER
    state.tables.drop_worker(worker)
    rows = map(state.tables.jobs.row, sorted(worker.running))
    for job in [row for row in rows if row is not None]:
        if command.lost:
            _lose(state, job, command.reason, effects)
        else:
            hand_back(state, job, effects)
    state.totals.lost_workers += command.lost
    effects.workers_left.append(worker.id)
    return DONE


def _lose(state: State, job: Job, reason: str, effects: Effects) -> None:
    """A crash may be the job's own doing, so it consumes an attempt; there is nothing to wait for,
    so the retry is at once."""
    final = job.failures >= job.kind.spec.max_retries
    message = f"worker w{job.worker_id} was lost: {reason}"
    retry_at_ms = 0 if final else max(state.now_ms, 1)
    failure = JobFailure(job.id, job.attempt, "worker_lost", message, retry_at_ms, "", "lost")
    end_attempt(state, job, failure, effects)
