"""Pairs ready jobs with free capacity: workers grant credits, nobody polls.

A leader duty. Takes jobs out of the ready queues, proposes the assignment, and pushes the jobs to
the worker when the commit returns. What could not be assigned goes back to the front.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any

from cluster.actors.actor import Actor
from cluster.actors.assigned import Assigned
from cluster.actors.capacity import Share, share_out
from cluster.actors.desk import WorkerDesk
from cluster.actors.proposer import Proposer
from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded
from cluster.actors.session import Session
from cluster.machine import lifecycle
from cluster.machine.commands import AssignJobs, AssignMany, Command
from cluster.machine.effects import Effects
from cluster.machine.levels import GATES
from cluster.machine.results import Result, Settled
from cluster.machine.tables import Block, Job
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import RaftState

LEVEL = GATES[AssignMany]
RUNNING = lifecycle.RUNNING
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
        self._in_flight = 0  # assignments without an answer, and what follows
        self._tasks: set[asyncio.Task[None]] = set()
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
        while self._in_flight < ASSIGNING_MAX:
            shares = share_out(self._desk.capacity, self._ready, ASSIGN_JOBS_MAX, SHARES_MAX)
            if not shares:
                return
            is_taken = True
            jobs_max = ASSIGN_JOBS_MAX if self._raft.feature_level >= LEVEL else 0
            for together in _bundles(shares, jobs_max):
                is_taken = self._assign(together) and is_taken
            if not is_taken:
                return  # it is tried again soon
            if len(shares) == SHARES_MAX:
                await asyncio.sleep(0)
        self._held_back = True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        self._in_flight += 1
        task.add_done_callback(self._seen_to)

    def _seen_to(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._assigned(1)

    def _assigned(self, count: int) -> None:
        self._in_flight -= count
        if self._held_back and self._in_flight <= ASSIGNING_MAX // 2:
            self._held_back = False
            self.wake()

    # -- assigning -------------------------------------------------------------------------------

    def _assign(self, shares: list[Share]) -> bool:
        """False when it could not even be proposed."""
        giving = _Giving(self, shares)
        self._in_flight += len(shares)
        try:
            self._proposer.propose_together([(_command(shares), giving)])
        except (NotLeader, Overloaded) as error:
            self.missed(shares, error)
            return False
        return True

    def given(self, shares: list[Share], result: Result) -> None:
        """The answer to an assignment."""
        if not isinstance(result, Settled):
            self._take_back(shares)
        else:
            if result.refused:
                self._take_back_left_over(shares, set(result.refused))
            for session, jobs in shares:
                self.deliver(session, jobs, len(jobs))
        self._assigned(len(shares))

    def missed(self, shares: list[Share], error: Exception) -> None:
        """There is no answer. Refused does not mean deposed: a leader that has too much to do says
        so, too."""
        if isinstance(error, OutcomeUnknown):
            self._spawn(self._find_out(shares))
        else:
            self._take_back(shares)
        self._assigned(len(shares))

    def _take_back(self, shares: list[Share]) -> None:
        """Nothing was assigned: the jobs go to the front again, for whoever can take them."""
        for session, jobs in reversed(shares):
            self._ready.give_back(jobs)
            session.refund(len(jobs))
        self._wake_later()

    def _take_back_left_over(self, shares: list[Share], refused: set[int]) -> None:
        """Those of a worker that takes none go to the front; their credit is seen to as all is
        that was not used."""
        for _, jobs in reversed(shares):
            self._ready.give_back([job for job in jobs if job.id in refused and self._is_live(job)])

    async def _find_out(self, shares: list[Share]) -> None:
        """The answer got lost. While this node leads, whatever commits later tells what became of
        it; after that only the state can tell, and the next start of this duty reads it anew."""
        self._lost_track = True
        if await self.settled(shares[0].session):
            for session, jobs in shares:
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
        held = self._held(session, jobs)
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

    def _held(self, session: Session, jobs: list[Job]) -> list[Job]:
        """Those that run at this worker."""
        row, worker_id = self._raft.state.tables.jobs.row, session.worker_id
        return [
            job
            for job in jobs
            if job.state == RUNNING and job.worker_id == worker_id and row(job.id) is job
        ]

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
    """Waits for the answer to one command: a task and a future for each would cost more than the
    assignment."""

    __slots__ = ("_dispatcher", "_shares")

    def __init__(self, dispatcher: Dispatcher, shares: list[Share]) -> None:
        self._dispatcher = dispatcher
        self._shares = shares

    def done(self) -> bool:
        return False

    def set_result(self, result: Result) -> None:
        self._dispatcher.given(self._shares, result)

    def set_exception(self, error: Exception) -> None:
        self._dispatcher.missed(self._shares, error)

    def exception(self) -> None:
        """Seen to above."""


def _bundles(shares: list[Share], jobs_max: int) -> Iterator[list[Share]]:
    """Those that go in one command: several if they have no more than `jobs_max` jobs."""
    bundle: list[Share] = []
    count = 0
    for share in shares:
        count += len(share.jobs)
        if bundle and count > jobs_max:
            yield bundle
            bundle, count = [], len(share.jobs)
        bundle.append(share)
    yield bundle


def _command(shares: list[Share]) -> Command:
    if len(shares) == 1:
        session, jobs = shares[0]
        return AssignJobs(session.worker_id, [job.id for job in jobs])
    return AssignMany(
        [session.worker_id for session, _ in shares],
        [len(jobs) for _, jobs in shares],
        [job.id for _, jobs in shares for job in jobs],
    )


def _any_ready(entries: Iterable[Job | Block]) -> bool:
    """Not when the entry that brought them assigned them, too."""
    return any(
        entry.state == lifecycle.READY if isinstance(entry, Job) else entry.live > 0
        for entry in entries
    )
