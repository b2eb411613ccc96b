"""Failure detection: workers that vanished, attempts whose deadline passed without an answer.

A leader duty. Heartbeats stay in memory; only the consequence is proposed. A new leader gives every
registered worker one full TTL to reconnect, so a failover kills no running job.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cluster.actors.actor import Actor
from cluster.actors.desk import WorkerDesk
from cluster.actors.proposer import Proposer
from cluster.actors.services import AttemptError, NotLeader, OutcomeUnknown, Overloaded
from cluster.actors.session import Session
from cluster.clock import Clock
from cluster.machine import lifecycle
from cluster.machine.effects import Effects
from cluster.machine.reducers.assignments import OVERDUE_GRACE_MS
from cluster.machine.tables import Job
from cluster.raft_state import RaftState

log = logging.getLogger("quorate.detector")

CHECK_S = 0.25
STALL_MS = 1_000  # a round that is later than this: the loop stood still, the workers did not


class Detector(Actor):
    """Mailbox: overdue attempts `(job_id, attempt)`, or None for a round over all sessions."""

    name = "detector"

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
        self._ending: dict[tuple[int, int], int] = {}  # overdue attempt -> its worker
        raft.on_effects(self._on_effects)

    async def on_start(self) -> None:
        self._active = True
        self._round_ms = self._clock.monotonic_ms()
        self._ending.clear()
        self._adopt_workers()
        self._find_overdue()
        self._round()

    async def on_stop(self) -> None:
        self._active = False
        if self._timer is not None:
            self._timer.cancel()

    def _adopt_workers(self) -> None:
        """Whoever is registered and has no session gets a TTL to show up: the workers of the last
        leader, and one whose connection broke between its registration's commit and its answer."""
        sessions, workers = self._desk.sessions, self._raft.state.tables.workers
        if len(sessions) >= len(workers):
            return
        now_ms = self._clock.monotonic_ms()
        for worker_id in workers:
            if worker_id not in sessions:
                sessions[worker_id] = Session(worker_id, None, now_ms, self._ttl_ms)

    def _find_overdue(self) -> None:
        """A predecessor may have died between the timer and the consequence."""
        tables = self._raft.state.tables
        for worker in tables.workers.values():
            for job_id in worker.running:
                job = tables.jobs[job_id]
                if job.timer is None:
                    self.tell((job_id, job.attempt))

    def _round(self) -> None:
        now_ms = self._clock.monotonic_ms()
        late_ms = now_ms - self._round_ms - round(CHECK_S * 1000)
        self._round_ms = now_ms
        if late_ms > STALL_MS:
            self._excuse(late_ms)
        self.tell(None)
        self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._round)

    def _excuse(self, late_ms: int) -> None:
        """This process was stopped: what workers sent meanwhile is still unread."""
        for session in self._desk.sessions.values():
            session.seen_ms += late_ms
            session.gone_since_ms += late_ms

    def _on_effects(self, effects: Effects, index: int) -> None:
        for overdue in effects.jobs_overdue:
            self._enqueue(overdue)

    def _enqueue(self, overdue: tuple[int, int]) -> None:
        if self._active and not self.tell(overdue):
            asyncio.get_running_loop().call_later(CHECK_S, self._enqueue, overdue)

    async def receive(self, message: Any) -> None:
        try:
            if message is None:
                await self._check_sessions()
            else:
                await self._end_overdue(*message)
        except (NotLeader, OutcomeUnknown, Overloaded):
            # Refused or lost does not mean deposed. The next leader looks by itself, and sessions
            # are looked at again in the next round.
            if message is not None:
                asyncio.get_running_loop().call_later(CHECK_S, self._enqueue, message)

    async def _check_sessions(self) -> None:
        self._adopt_workers()
        for session in list(self._desk.sessions.values()):
            if self._desk.sessions.get(session.worker_id) is not session:
                continue  # came back or left while another's loss was committed
            reason = self._why_lost(session, self._clock.monotonic_ms())
            if reason:
                log.warning("worker w%d is lost: %s", session.worker_id, reason)
                await self._desk.lose(session.worker_id, reason)

    def _why_lost(self, session: Session, now_ms: int) -> str:
        """Why this worker is taken for dead, or an empty string."""
        if session.sink is None:
            gone_ms = now_ms - session.gone_since_ms
            return f"connection lost for {gone_ms} ms" if gone_ms >= session.grace_ms else ""
        silent_ms = now_ms - session.seen_ms
        return f"no heartbeat for {silent_ms} ms" if silent_ms >= self._ttl_ms else ""

    async def _end_overdue(self, job_id: int, attempt: int) -> None:
        key = (job_id, attempt)
        job = self._raft.state.tables.jobs.get(job_id)
        if job is not None and job.state == lifecycle.RUNNING and job.attempt == attempt:
            self._ending[key] = job.worker_id
            await self._desk.fail(job.worker_id, [self._overdue_error(job)])
        # Only now: a worker that registers while this commits still counts the attempt as its own.
        session = self._desk.sessions.get(self._ending.pop(key, 0))
        if session is not None and session.sink is not None:
            session.sink.send_cancel([key])

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
