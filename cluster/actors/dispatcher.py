"""Pairs ready jobs with free capacity: workers grant credits, nobody polls.

A leader duty. Takes jobs out of the ready queues, proposes the assignment, and pushes the jobs to
the worker when the commit returns. What could not be assigned goes back to the front.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from cluster.actors.actor import Actor
from cluster.actors.assigned import Assigned
from cluster.actors.capacity import share_out
from cluster.actors.desk import WorkerDesk
from cluster.actors.proposer import Proposer
from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded
from cluster.actors.session import Session
from cluster.machine import lifecycle
from cluster.machine.commands import AssignJobs
from cluster.machine.effects import Effects
from cluster.machine.results import Result, Settled
from cluster.machine.tables import Block, Job
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import RaftState

ASSIGN_JOBS_MAX = 1_000
SHARES_MAX = 500  # assignments that are made in one go; others run before the next
ASSIGNING_MAX = 4_000  # in flight; the log takes no more at a time, and what waits keeps its order
RETRY_S = 0.01  # after a refusal: soon, but not at once, so that a lasting one does not spin


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
        self._assigning: set[object] = set()  # assignments without an answer, and what follows
        self._held_back = False  # so many assignments were in flight that a round ended early
        self.assigned_total = 0
        raft.on_effects(self._on_effects)
        desk.on_capacity(self.wake)

    @property
    def is_settled(self) -> bool:
        """Who still has credit has nothing to take: the last round saw to that."""
        return self._active and not self._mailbox

    def wake(self) -> None:
        if self._active:
            self.tell("wake")

    def _wake_later(self) -> None:
        asyncio.get_running_loop().call_later(RETRY_S, self.wake)

    def _on_effects(self, effects: Effects, index: int) -> None:
        if self._active and (effects.workers_changed or _any_ready(effects.jobs_ready)):
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
        try:
            await self._round()
        except Exception:
            self._lost_track = True
            raise

    # -- choosing --------------------------------------------------------------------------------

    async def _round(self) -> None:
        """Pass after pass until no worker can take anything more: nobody wakes us for the rest."""
        while len(self._assigning) < ASSIGNING_MAX:
            shares = share_out(self._desk.capacity, self._ready, ASSIGN_JOBS_MAX, SHARES_MAX)
            if not shares:
                return
            is_taken = True
            for share in shares:
                is_taken = self._assign(*share) and is_taken
            if not is_taken:
                return  # it is tried again soon
            if len(shares) == SHARES_MAX:
                await asyncio.sleep(0)
        self._held_back = True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._assigning.add(task)
        task.add_done_callback(self._assigned)

    def _assigned(self, work: object) -> None:
        self._assigning.discard(work)
        if self._held_back and len(self._assigning) <= ASSIGNING_MAX // 2:
            self._held_back = False
            self.wake()

    # -- assigning -------------------------------------------------------------------------------

    def _assign(self, session: Session, jobs: list[Job]) -> bool:
        """False when it could not even be proposed."""
        giving = _Giving(self, session, jobs)
        command = AssignJobs(session.worker_id, [job.id for job in jobs])
        try:
            self._proposer.propose_together([(command, giving)])
        except (NotLeader, Overloaded) as error:
            self.missed(giving, error)
            return False
        self._assigning.add(giving)
        return True

    def given(self, giving: _Giving, result: Result) -> None:
        """The answer to an assignment."""
        if isinstance(result, Settled):
            self.deliver(giving.session, giving.jobs, len(giving.jobs))
        else:
            self._take_back(giving.session, giving.jobs)
        self._assigned(giving)

    def missed(self, giving: _Giving, error: Exception) -> None:
        """There is no answer. Refused does not mean deposed: a leader that has too much to do says
        so, too."""
        if isinstance(error, OutcomeUnknown):
            self._spawn(self._find_out(giving.session, giving.jobs))
        else:
            self._take_back(giving.session, giving.jobs)
        self._assigned(giving)

    def _take_back(self, session: Session, jobs: list[Job]) -> None:
        """Nothing was assigned: the jobs go to the front again, for whoever can take them."""
        self._ready.give_back(jobs)
        session.refund(len(jobs))
        self._wake_later()

    async def _find_out(self, session: Session, jobs: list[Job]) -> None:
        """The answer got lost. While this node leads, whatever commits later tells what became of
        it; after that only the state can tell, and the next start of this duty reads it anew."""
        self._lost_track = True
        if await self.settled(session):
            self._ready.give_back([job for job in jobs if self._is_live(job)])
            self.deliver(session, jobs, len(jobs))

    async def settled(self, session: Session) -> bool:
        """True once something committed that was proposed after all that got lost; False when this
        leadership ended before."""
        epoch = self._raft.epoch
        while self._raft.is_leader and self._raft.epoch == epoch:
            try:
                await self._proposer.propose(AssignJobs(session.worker_id, []))
                return True
            except (NotLeader, OutcomeUnknown, Overloaded):
                await asyncio.sleep(RETRY_S)
        return False

    def deliver(self, session: Session, jobs: list[Job], reserved: int) -> None:
        """Send what was assigned and still is: a job may have been cancelled in the same entry.

        What never reaches the worker is released, also what shall stop before it began; what is
        left of the `reserved` credit is given back."""
        held = [job for job in jobs if self._is_held(session, job)]
        stopping = [job for job in held if job.extra is not None and job.extra.stop_by_ms]
        if stopping:
            held = [job for job in held if job.extra is None or not job.extra.stop_by_ms]
            self._spawn(self._hand_back(session.worker_id, stopping))
        if len(held) < reserved:
            session.refund(reserved - len(held))
            self._wake_later()
        if not held:
            return
        if session.sink is None or self._desk.sessions.get(session.worker_id) is not session:
            # The worker reconnected (or went) between the two.
            self._spawn(self._hand_back(session.worker_id, held))
            return
        self.assigned_total += len(held)
        session.sink.send_jobs(Assigned(held))

    def _is_live(self, job: Job) -> bool:
        """A row lives through one attempt, so identity says that it is still the same one."""
        return self._raft.state.tables.jobs.get(job.id) is job

    def _is_held(self, session: Session, job: Job) -> bool:
        running = job.state == lifecycle.RUNNING and job.worker_id == session.worker_id
        return running and self._is_live(job)

    async def _hand_back(self, worker_id: int, jobs: list[Job]) -> None:
        """Insists while this node leads; under the next leader the worker's registration tells."""
        while jobs and self._raft.is_leader:
            try:
                await self._desk.release(
                    worker_id, [job.id for job in jobs], [job.attempt for job in jobs]
                )
                return
            except (NotLeader, OutcomeUnknown, Overloaded):
                await asyncio.sleep(RETRY_S)


class _Giving:
    """Waits for the answer to one assignment: a task and a future for each would cost more than the
    assignment."""

    __slots__ = ("_dispatcher", "jobs", "session")

    def __init__(self, dispatcher: Dispatcher, session: Session, jobs: list[Job]) -> None:
        self._dispatcher = dispatcher
        self.session = session
        self.jobs = jobs

    def done(self) -> bool:
        return False

    def set_result(self, result: Result) -> None:
        self._dispatcher.given(self, result)

    def set_exception(self, error: Exception) -> None:
        self._dispatcher.missed(self, error)

    def exception(self) -> None:
        """Seen to above."""


def _any_ready(entries: Iterable[Job | Block]) -> bool:
    """Not when the entry that brought them assigned them, too."""
    return any(
        entry.state == lifecycle.READY if isinstance(entry, Job) else entry.live > 0
        for entry in entries
    )
