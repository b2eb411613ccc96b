"""Failure detection: workers that vanished, attempts whose deadline passed without an answer.

A leader duty. Heartbeats stay in memory; only the consequence is proposed. A new leader gives every
registered worker one full TTL to reconnect, so a failover kills no running job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Sequence
from itertools import islice
from typing import Any

from cluster.actors.actor import Actor
from cluster.actors.desk import WorkerDesk
from cluster.actors.proposer import Proposer
from cluster.actors.services import AttemptError, NotLeader, OutcomeUnknown, Overloaded
from cluster.actors.session import Session
from cluster.actors.slices import Slices
from cluster.actors.watch import Watch
from cluster.clock import Clock
from cluster.machine import lifecycle
from cluster.machine.effects import Effects
from cluster.machine.reducers.assignments import OVERDUE_GRACE_MS
from cluster.machine.tables import Job
from cluster.raft_state import RaftState

log = logging.getLogger("quorate.detector")

CHECK_S = 0.25
STALL_MS = 1_000  # a round that is later than this: the loop stood still, the workers did not
TOGETHER_MAX = 200  # workers whose loss is proposed at a time
OVERDUE_MAX = 500  # attempts that are ended at a time
NAMED_MAX = 20  # lost workers that a round names in the log, one line each


class Detector(Actor):
    """Mailbox: a wake-up. Whom to look at and what is overdue is kept here."""

    name = "detector"
    mailbox_max = 1

    def __init__(
        self, raft: RaftState, proposer: Proposer, desk: WorkerDesk, clock: Clock, ttl_ms: int
    ) -> None:
        super().__init__()
        self._raft = raft
        self._desk = desk
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._active = False
        self._timer: asyncio.TimerHandle | None = None
        self._round_ms = 0
        self._watch = Watch(0)
        # Attempts to end, with the worker that had it when its end was proposed (0: not yet).
        self._overdue: dict[tuple[int, int], int] = {}
        raft.on_effects(self._on_effects)
        desk.on_watch(self._look_at)

    async def on_start(self) -> None:
        self._round_ms = self._clock.monotonic_ms()
        self._watch = Watch(self._round_ms)
        self._overdue.clear()
        self._active = True
        for session in self._desk.sessions.values():
            session.look_slot = None
            self._look_at(session)
        self._round()
        await self._adopt_workers()
        await self._find_overdue()

    async def on_stop(self) -> None:
        self._active = False
        if self._timer is not None:
            self._timer.cancel()

    async def _adopt_workers(self) -> None:
        """Whoever is registered and has no session gets a TTL to show up: the workers of the last
        leader, and one whose connection broke between its registration's commit and its answer."""
        workers = self._raft.state.tables.workers
        if len(self._desk.sessions) >= len(workers):
            return
        slices = Slices(self._clock)
        for worker_id in list(workers):
            if worker_id in workers and worker_id not in self._desk.sessions:
                now_ms = self._clock.monotonic_ms()
                self._desk.add(Session(worker_id, None, now_ms, self._ttl_ms))
            await slices.step()

    async def _find_overdue(self) -> None:
        """A predecessor may have died between the timer and the consequence."""
        tables, slices = self._raft.state.tables, Slices(self._clock)
        for worker_id in list(tables.workers):
            worker = tables.workers.get(worker_id)
            for job_id in worker.running if worker is not None else ():
                job = tables.jobs[job_id]
                if job.timer is None:
                    self._overdue[job_id, job.attempt] = 0
            await slices.step()
        self.tell("look")

    def _round(self) -> None:
        now_ms = self._clock.monotonic_ms()
        late_ms = now_ms - self._round_ms - round(CHECK_S * 1000)
        self._round_ms = now_ms
        if late_ms > STALL_MS:
            self._excuse(late_ms)
        self.tell("look")
        self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._round)

    def _excuse(self, late_ms: int) -> None:
        """This process was stopped: what workers sent meanwhile is still unread."""
        for session in self._desk.sessions.values():
            session.seen_ms += late_ms
            session.gone_since_ms += late_ms

    def _on_effects(self, effects: Effects, index: int) -> None:
        if effects.jobs_overdue:
            self.end(effects.jobs_overdue)

    def end(self, attempts: Iterable[tuple[int, int]]) -> None:
        """Nobody answers for these any more, `(job id, attempt)`."""
        if self._active:
            for attempt in attempts:
                self._overdue.setdefault(attempt, 0)
            self.tell("look")

    async def receive(self, message: Any) -> None:
        await self._check_sessions()
        await self._end_overdue()

    async def _booked(self, proposals: Iterable[Awaitable[object]]) -> bool:
        """False when one was refused or got lost. That does not mean deposed: the next round looks
        again, and so does the next leader."""
        booked = True
        for answer in await asyncio.gather(*proposals, return_exceptions=True):
            if isinstance(answer, NotLeader | OutcomeUnknown | Overloaded):
                booked = False
            elif isinstance(answer, BaseException):
                raise answer
        return booked

    # -- workers ---------------------------------------------------------------------------------

    def _look_at(self, session: Session) -> None:
        """When it would be lost."""
        if self._active:
            away = session.sink is None
            due_ms = session.gone_since_ms if away else session.seen_ms
            self._watch.look_at(session, due_ms + (session.grace_ms if away else self._ttl_ms))

    async def _check_sessions(self) -> None:
        await self._adopt_workers()
        now_ms = self._clock.monotonic_ms()
        lost = []
        for session in self._watch.due(now_ms):
            if not self._is_current(session):
                continue
            if self._why_lost(session, now_ms):
                lost.append(session)
                self._watch.look_at(session, now_ms + STALL_MS)  # should its loss not be booked
            else:
                self._look_at(session)
        if len(lost) > NAMED_MAX:
            log.warning("%d workers are lost at once", len(lost))
        for first in range(0, len(lost), TOGETHER_MAX):
            await self._lose(lost[first : first + TOGETHER_MAX], len(lost) <= NAMED_MAX)

    def _is_current(self, session: Session) -> bool:
        return self._desk.sessions.get(session.worker_id) is session

    async def _lose(self, sessions: Sequence[Session], is_told: bool) -> None:
        """Those that have not come back or left while others' loss was committed."""
        now_ms, losses = self._clock.monotonic_ms(), []
        for session in sessions:
            reason = self._why_lost(session, now_ms)
            if reason and self._is_current(session):
                if is_told:
                    log.warning("worker w%d is lost: %s", session.worker_id, reason)
                losses.append(self._desk.lose(session.worker_id, reason))
        await self._booked(losses)

    def _why_lost(self, session: Session, now_ms: int) -> str:
        """Why this worker is taken for dead, or an empty string."""
        if session.sink is None:
            gone_ms = now_ms - session.gone_since_ms
            return f"connection lost for {gone_ms} ms" if gone_ms >= session.grace_ms else ""
        silent_ms = now_ms - session.seen_ms
        return f"no heartbeat for {silent_ms} ms" if silent_ms >= self._ttl_ms else ""

    # -- attempts --------------------------------------------------------------------------------

    async def _end_overdue(self) -> None:
        while attempts := list(islice(self._overdue, OVERDUE_MAX)):
            errors: dict[int, list[AttemptError]] = {}
            for job_id, attempt in attempts:
                job = self._raft.state.tables.jobs.get(job_id)
                if job is not None and job.state == lifecycle.RUNNING and job.attempt == attempt:
                    self._overdue[job_id, attempt] = job.worker_id
                    errors.setdefault(job.worker_id, []).append(self._overdue_error(job))
            ends = (self._desk.fail(worker_id, those) for worker_id, those in errors.items())
            if not await self._booked(ends):
                return
            # Only now: a worker that registers while this commits still counts it as its own.
            for ended in attempts:
                self._cancel(self._overdue.pop(ended), ended)

    def _cancel(self, worker_id: int, attempt: tuple[int, int]) -> None:
        session = self._desk.sessions.get(worker_id)
        if session is not None and session.sink is not None:
            session.sink.send_cancel([attempt])

    def _overdue_error(self, job: Job) -> AttemptError:
        now_ms = max(self._clock.now_ms(), self._raft.state.now_ms)
        if job.extra is not None and 0 < job.extra.deadline_ms <= now_ms:
            return AttemptError(
                job.id, job.attempt, "timeout", "total_timeout_seconds passed", retryable=False
            )
        timeout_s = job.kind.spec.timeout_ms / 1000
        return AttemptError(
            job.id, job.attempt, "timeout",
            f"no answer within timeout_seconds={timeout_s:g} and {OVERDUE_GRACE_MS} ms more",
        )  # fmt: skip
