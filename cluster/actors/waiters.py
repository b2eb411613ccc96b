"""Callers that wait for a job to finish (`GET /v1/jobs/{id}?wait=`)."""

from __future__ import annotations

import asyncio

from cluster.machine.effects import Effects
from cluster.machine.state import State
from cluster.raft_state import RaftState


class Waiters:
    """Futures by job id, resolved from effects. Costs nothing while nobody waits."""

    def __init__(self, raft: RaftState) -> None:
        self._raft = raft
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}
        raft.on_effects(self._on_effects)
        raft.on_restored(self._on_restored)

    async def finished(self, job_id: int, timeout_s: float) -> bool:
        """True once the job is not live; at once if it already is not. False when time is up."""
        if job_id not in self._raft.state.tables.jobs:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(job_id, set())
        waiting.add(future)
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return False
        finally:
            waiting.discard(future)
            # Others may wait for the job's next life by now: theirs is another set.
            if not waiting and self._waiting.get(job_id) is waiting:
                del self._waiting[job_id]
        return True

    def _on_effects(self, effects: Effects, index: int) -> None:
        if self._waiting:
            for finished in effects.jobs_finished:
                self._resolve(finished.job.id)

    def _on_restored(self, state: State) -> None:
        for job_id in list(self._waiting):
            if job_id not in state.tables.jobs:
                self._resolve(job_id)

    def _resolve(self, job_id: int) -> None:
        for future in self._waiting.pop(job_id, ()):
            if not future.done():
                future.set_result(None)
