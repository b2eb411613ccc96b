"""What changes in a state that leaves its cluster behind.

The workers of the old cluster are lost: each job that ran there has used its attempt up and is
retried, or dead. Numbers that the old cluster may have given since the backup are skipped, so that
nobody who remembers one gets another job, and no worker of old passes for a new one.
"""

from __future__ import annotations

from cluster.machine.apply import apply
from cluster.machine.commands import Batch, RemoveWorker
from cluster.machine.state import State

IDS_SKIPPED = 1_000_000
REASON = "the cluster was restored from a backup"


def revive(state: State, ids_skipped: int = IDS_SKIPPED) -> int:
    """Changes the state in place; returns how many jobs were running."""
    workers = list(state.tables.workers)
    running = sum(len(row.running) for row in state.tables.workers.values())
    removals = [RemoveWorker(worker_id, True, REASON) for worker_id in workers]
    apply(state, Batch(state.epoch, state.now_ms, [*removals]))
    state.next_job_id += ids_skipped
    state.next_worker_id += ids_skipped
    return running
