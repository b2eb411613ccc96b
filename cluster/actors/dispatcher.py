"""Pairs ready jobs with free capacity: workers grant credits, nobody polls.

A leader duty. Takes jobs out of the ready queues, proposes the assignment, and pushes the jobs to
the worker when the commit returns. What could not be assigned goes back to the front.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cluster.actors.actor import Actor
from cluster.actors.desk import WorkerDesk
from cluster.actors.proposer import Proposer
from cluster.actors.services import Assignment, NotLeader, OutcomeUnknown, Overloaded
from cluster.actors.session import Session
from cluster.machine.commands import AssignJobs
from cluster.machine.effects import Effects
from cluster.machine.results import Settled
from cluster.machine.tables import Job
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import RaftState

log = logging.getLogger("quorate.dispatch")

ASSIGN_JOBS_MAX = 1_000
OVERLOAD_PAUSE_S = 0.01


class Dispatcher(Actor):
    """One round per wake-up; a burst of wake-ups shares one round."""

    name = "dispatcher"
    mailbox_max = 1  # a second wake-up before the first was handled says nothing new

    def __init__(
        self, raft: RaftState, proposer: Proposer, desk: WorkerDesk, ready: ReadyQueues
    ) -> None:
        super().__init__()
        self._raft = raft
        self._proposer = proposer
        self._desk = desk
        self._ready = ready
        self._active = False
        self._lost_track = False  # jobs were taken and nobody knows whether they were assigned
        self._assigning: set[asyncio.Task[None]] = set()
        self.assigned_total = 0
        raft.on_effects(self._on_effects)
        desk.on_capacity(self.wake)

    def wake(self) -> None:
        if self._active:
            self.tell("wake")

    def _on_effects(self, effects: Effects, index: int) -> None:
        if self._active and (effects.jobs_ready or effects.workers_changed):
            self.wake()

    async def on_start(self) -> None:
        if self._lost_track:
            self._ready.rebuild(self._raft.state)
            self._lost_track = False
        self._active = True
        self.wake()

    async def on_stop(self) -> None:
        self._active = False

    async def receive(self, message: Any) -> None:
        for session in self._by_credit():
            self._serve(session)

    def _by_credit(self) -> list[Session]:
        """Workers that can take something, most free capacity first."""
        able = [
            s
            for s in self._desk.sessions.values()
            if s.credit > 0 and s.sink is not None and not s.draining
        ]
        able.sort(key=lambda s: -s.credit)
        return able

    def _serve(self, session: Session) -> None:
        row = self._raft.state.tables.workers.get(session.worker_id)
        if row is None or row.draining:
            return
        lanes = session.lanes(self._ready, row.spec.queues, row.spec.tasks)
        while session.credit > 0:
            waiting = self._ready.waiting(lanes)
            if not waiting:
                return
            share = -(-waiting // max(self._able_count(), 1))
            jobs = self._ready.take(lanes, min(session.credit, share, ASSIGN_JOBS_MAX))
            if not jobs:
                return
            session.credit -= len(jobs)
            task = asyncio.create_task(self._assign(session, jobs))
            self._assigning.add(task)
            task.add_done_callback(self._assigning.discard)
            if share < ASSIGN_JOBS_MAX:
                return  # leave the rest to the others

    def _able_count(self) -> int:
        return sum(
            1
            for s in self._desk.sessions.values()
            if s.credit > 0 and s.sink is not None and not s.draining
        )

    async def _assign(self, session: Session, jobs: list[Job]) -> None:
        try:
            result = await self._proposer.propose(
                AssignJobs(session.worker_id, [job.id for job in jobs])
            )
        except NotLeader:
            self._ready.give_back(jobs)
            return
        except OutcomeUnknown:
            # If it did commit, the worker must not miss it: registering again settles that.
            self._lost_track = True
            if session.sink is not None:
                session.sink.close_moved(self._raft.leader_http)
            return
        except Overloaded:
            self._ready.give_back(jobs)
            session.credit += len(jobs)
            asyncio.get_running_loop().call_later(OVERLOAD_PAUSE_S, self.wake)
            return
        if not isinstance(result, Settled):
            self._ready.give_back(jobs)
            return
        await self._push(session, jobs, set(result.refused))

    async def _push(self, session: Session, jobs: list[Job], refused: set[int]) -> None:
        """Send what was assigned; results that are not this session's business are released."""
        if refused:
            session.credit += len(refused)
            jobs = [job for job in jobs if job.id not in refused]
        if session.sink is None or self._desk.sessions.get(session.worker_id) is not session:
            # The worker reconnected (or went) between the two; this assignment never reached it.
            await self._hand_back(session.worker_id, jobs)
            return
        self.assigned_total += len(jobs)
        session.sink.send_jobs([_assignment(job) for job in jobs])

    async def _hand_back(self, worker_id: int, jobs: list[Job]) -> None:
        try:
            await self._desk.release(
                worker_id, [job.id for job in jobs], [job.attempt for job in jobs]
            )
        except (NotLeader, OutcomeUnknown, Overloaded):
            log.warning("could not hand back %d jobs of worker w%d", len(jobs), worker_id)


def _assignment(job: Job) -> Assignment:
    spec = job.kind.spec
    deadline_ms = job.extra.deadline_ms if job.extra is not None else 0
    return Assignment(
        job.id,
        job.attempt,
        spec.name,
        spec.queue,
        job.payload,
        spec.timeout_ms,
        deadline_ms,
        job.failures,
        spec.max_retries,
    )
