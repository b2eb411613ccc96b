"""The leader's front desk for workers: registration, results, credits.

Turns what workers say into commands. Decides retries here, through policy, because the log carries
decisions only. Does not know sockets: a `Sink` takes what is sent back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from cluster.actors.capacity import Capacity
from cluster.actors.completions import Completions, Report
from cluster.actors.live import LiveBoard
from cluster.actors.proposer import Proposer
from cluster.actors.services import AttemptError, NotLeader, Overloaded, Sink
from cluster.actors.session import Session
from cluster.clock import Clock
from cluster.machine import lifecycle
from cluster.machine.commands import (
    Command,
    DrainWorker,
    FailJobs,
    JobFailure,
    RegisterWorker,
    ReleaseJobs,
    RemoveWorker,
    UpdateWorker,
)
from cluster.machine.effects import Effects
from cluster.machine.model import WorkerSpec
from cluster.machine.results import Registered, Rejected, Result, Settled
from cluster.machine.tables import Job
from cluster.policy.retry import retry_delay_ms
from cluster.raft_state import RaftState

Attempts = list[tuple[int, int]]

SEND_AWAY_S = 0.2  # so long the next leader is waited for, so that workers need not look for it


class WorkerDesk:
    """All sessions of this leader. Every method that changes state raises NotLeader elsewhere,
    Overloaded when too much is queued, OutcomeUnknown when the answer got lost."""

    def __init__(
        self,
        raft: RaftState,
        proposer: Proposer,
        clock: Clock,
        live: LiveBoard,
        reconnect_grace_ms: int,
        rng: random.Random | None = None,
    ) -> None:
        """`rng` draws the jitter of retries; simulation gives a seeded one."""
        self.sessions: dict[int, Session] = {}
        self.capacity = Capacity()
        self.completions = Completions(raft, proposer)
        self._raft = raft
        self._proposer = proposer
        self._clock = clock
        self._live = live
        self._grace_ms = reconnect_grace_ms
        self._rng = rng or random.Random()
        self._wake: Callable[[], None] = lambda: None
        self._watch: Callable[[Session], None] = lambda session: None
        self._sent_away: list[Sink] = []
        raft.on_leadership(self._on_leadership)
        raft.on_leader(lambda leader: self._send_away() if leader is not None else None)
        raft.on_effects(self._on_effects)

    def on_capacity(self, wake: Callable[[], None]) -> None:
        """`wake` is called when a worker may take more."""
        self._wake = wake

    def on_watch(self, watch: Callable[[Session], None]) -> None:
        """`watch` is called with a session that is new, or that may be silent for less long."""
        self._watch = watch

    # -- registration ----------------------------------------------------------------------------

    async def register(
        self, spec: WorkerSpec, known_id: int, running: Attempts, sink: Sink
    ) -> tuple[int, Attempts]:
        """Returns the worker id and those of `running` that are not this worker's any more."""
        worker_id = await self._book_registration(spec, known_id)
        self._require_leader()  # or this session would outlive the leadership it belongs to
        old = self.sessions.get(worker_id)
        if old is not None and old.sink is not None and old.sink is not sink:
            old.sink.close_moved(self._raft.leader_http)
        # Without a sink until all is settled, so that nothing is sent before the answer.
        session = Session(worker_id, None, self._clock.monotonic_ms(), self._grace_ms)
        self.add(session)
        missing = self._missing(worker_id, running)
        if missing:
            await self.release(worker_id, [i for i, _ in missing], [a for _, a in missing])
            if self.sessions.get(worker_id) is not session:
                raise NotLeader(self._raft.leader_http)
        self.connect(session, sink)
        session.seen_ms = self._clock.monotonic_ms()
        asyncio.get_running_loop().call_soon(self._catch_up, worker_id, session)
        held = self.held(worker_id)
        return worker_id, [(i, a) for i, a in running if held.get(i) != a]

    def _missing(self, worker_id: int, running: Attempts) -> Attempts:
        """Assigned, but the assignment never reached the worker: nobody runs these."""
        claimed = set(running)
        return [held for held in self.held(worker_id).items() if held not in claimed]

    async def _book_registration(self, spec: WorkerSpec, known_id: int) -> int:
        row = self._raft.state.tables.workers.get(known_id)
        if row is not None and row.spec == spec:
            self._require_leader()
            return known_id
        if row is not None:
            updated = await self._proposer.propose(UpdateWorker(known_id, spec))
            if isinstance(updated, Registered):
                return updated.worker_id
        result = await self._proposer.propose(RegisterWorker(spec))
        assert isinstance(result, Registered), result
        return result.worker_id

    def held(self, worker_id: int) -> dict[int, int]:
        """The attempts that the state sees at this worker: `{job id: attempt}`."""
        tables = self._raft.state.tables
        row = tables.workers.get(worker_id)
        return {} if row is None else {i: tables.jobs[i].attempt for i in row.running}

    def asked_to_stop(self, worker_id: int) -> Attempts:
        """Those of them that shall stop and whose end is awaited."""
        jobs = self._raft.state.tables.jobs
        held = ((jobs[job_id], attempt) for job_id, attempt in self.held(worker_id).items())
        return [
            (job.id, attempt)
            for job, attempt in held
            if job.extra is not None and job.extra.stop_by_ms
        ]

    def _require_leader(self) -> None:
        if not self._raft.is_leader:
            raise NotLeader(self._raft.leader_http)

    async def drain(self, worker_id: int) -> bool:
        """Give the worker nothing more; it is told to finish and leave. False: unknown worker."""
        result = await self._proposer.propose(DrainWorker(worker_id))
        return result is not Rejected.UNKNOWN_WORKER

    async def leave(self, worker_id: int) -> bool:
        """The worker says goodbye; what it still holds returns without consuming an attempt."""
        result = await self._proposer.propose(RemoveWorker(worker_id, False, "left"))
        return result is not Rejected.UNKNOWN_WORKER

    async def lose(self, worker_id: int, reason: str) -> None:
        """The worker is taken for dead."""
        await self._proposer.propose(RemoveWorker(worker_id, True, reason))

    # -- liveness --------------------------------------------------------------------------------

    def seen(self, worker_id: int) -> None:
        """Any sign of life."""
        session = self.sessions.get(worker_id)
        if session is not None:
            session.seen_ms = self._clock.monotonic_ms()

    def add(self, session: Session) -> None:
        """From now on this is the worker's session."""
        old = self.sessions.get(session.worker_id)
        if old is not None:
            self.capacity.dismiss(old)
        self.sessions[session.worker_id] = session
        self._watch(session)

    def connect(self, session: Session, sink: Sink) -> None:
        """What is sent to this worker goes to `sink`."""
        session.sink = sink
        self._follow_offer(session)

    def disconnected(self, worker_id: int, sink: Sink) -> None:
        """The connection broke: the worker has a grace period to come back."""
        session = self.sessions.get(worker_id)
        if session is not None and session.sink is sink:
            self.capacity.dismiss(session)
            session.sink = None
            session.credit = 0
            session.gone_since_ms = self._clock.monotonic_ms()
            self._watch(session)

    def is_connected(self, worker_id: int) -> bool:
        session = self.sessions.get(worker_id)
        return session is not None and session.sink is not None

    def last_seen_ms(self, worker_id: int) -> int | None:
        """Epoch ms of the last sign of life, as far as this leader knows."""
        session = self.sessions.get(worker_id)
        if session is None:
            return None
        return self._clock.now_ms() - (self._clock.monotonic_ms() - session.seen_ms)

    def grant(self, worker_id: int, credit: int) -> None:
        """The worker can take `credit` more jobs than before (negative: fewer)."""
        session = self.sessions.get(worker_id)
        if session is not None:
            session.credit = max(session.credit + credit, 0)
            if credit > 0:
                self._wake()

    # -- results ---------------------------------------------------------------------------------

    async def complete(
        self,
        worker_id: int,
        job_ids: list[int],
        attempts: list[int],
        outputs: list[bytes | None] | None,
        logs: list[str | None] | None,
    ) -> list[int]:
        """Book successes; returns the refused (stale) ids."""
        answer = _Answer()
        self.completions.add(Report(worker_id, job_ids, attempts, outputs, logs, answer))
        return await answer.future

    async def fail(self, worker_id: int, errors: Sequence[AttemptError]) -> list[int]:
        """Book failures and decide when, if at all, each is retried; returns the refused ids."""
        now_ms = self._now_ms()
        failures = [self._decide(error, now_ms) for error in errors]
        return await self._settle(FailJobs(worker_id, failures))

    async def release(self, worker_id: int, job_ids: list[int], attempts: list[int]) -> list[int]:
        """Take jobs back unfinished; no attempt is consumed. Returns the refused ids."""
        return await self._settle(ReleaseJobs(worker_id, job_ids, attempts))

    async def _settle(self, command: Command) -> list[int]:
        result: Result = await self._proposer.propose(command)
        if isinstance(result, Settled):
            return result.refused
        raise Overloaded(f"the result was not booked: {result!r}")

    def _now_ms(self) -> int:
        return max(self._clock.now_ms(), self._raft.state.now_ms)

    def _decide(self, error: AttemptError, now_ms: int) -> JobFailure:
        job = self._raft.state.tables.jobs.get(error.job_id)
        retry_at_ms = 0
        if job is not None and error.retryable:
            retry_at_ms = self._retry_at_ms(job, now_ms)
        outcome = "timeout" if error.error_type == "timeout" else "failed"
        return JobFailure(
            error.job_id, error.attempt, error.error_type, error.error_message,
            retry_at_ms, error.log or "", outcome,
        )  # fmt: skip

    def _retry_at_ms(self, job: Job, now_ms: int) -> int:
        """When the job runs again after one more failure; 0 when its retries are used up."""
        spec, failures = job.kind.spec, job.failures + 1
        if failures > spec.max_retries:
            return 0
        retry = spec.retry
        delay_ms = retry_delay_ms(
            retry.strategy, failures, retry.base_ms, retry.max_ms, retry.jitter, self._rng
        )
        retry_at_ms = now_ms + max(delay_ms, 1)
        deadline_ms = job.extra.deadline_ms if job.extra is not None else 0
        return 0 if deadline_ms and retry_at_ms >= deadline_ms else retry_at_ms

    # -- progress --------------------------------------------------------------------------------

    def progress(
        self, worker_id: int, items: Sequence[tuple[int, int, float | None, str | None]]
    ) -> list[int]:
        """Show progress of running attempts; returns the stale ids."""
        self._require_leader()
        refused = []
        for job_id, attempt, fraction, message in items:
            if self._runs(job_id, attempt):
                self._live.set_progress(job_id, fraction, message)
            else:
                refused.append(job_id)
        return refused

    def log(self, worker_id: int, items: Sequence[tuple[int, int, str]]) -> None:
        """Show live log text of running attempts; the durable log comes with the result."""
        for job_id, attempt, text in items:
            if self._runs(job_id, attempt):
                self._live.add_log(job_id, attempt, text)

    def _runs(self, job_id: int, attempt: int) -> bool:
        job = self._raft.state.tables.jobs.get(job_id)
        return job is not None and job.state == lifecycle.RUNNING and job.attempt == attempt

    # -- following the state ---------------------------------------------------------------------

    def _on_leadership(self, leads: bool) -> None:
        if leads:
            return
        sessions, self.sessions = self.sessions, {}
        self.capacity.clear()
        self._sent_away += [s.sink for s in sessions.values() if s.sink is not None]
        if self._raft.leader_http is not None:
            self._send_away()
        elif self._sent_away:
            asyncio.get_running_loop().call_later(SEND_AWAY_S, self._send_away)

    def _send_away(self) -> None:
        """Workers of a leadership that has ended are told where to go."""
        sinks, self._sent_away = self._sent_away, []
        for sink in sinks:
            sink.close_moved(self._raft.leader_http)

    def _on_effects(self, effects: Effects, index: int) -> None:
        if not self.sessions:
            return
        for worker_id, job_id, attempt in effects.jobs_stopped:
            session = self.sessions.get(worker_id)
            if session is not None and session.sink is not None:
                session.sink.send_cancel([(job_id, attempt)])
        for worker_id, job_id, attempt in effects.jobs_stopping:
            session = self.sessions.get(worker_id)
            if session is not None and session.sink is not None:
                session.sink.send_stop([(job_id, attempt)])
        for worker_id in effects.workers_changed:
            self._follow_change(worker_id)
        for worker_id in effects.workers_left:
            gone = self.sessions.pop(worker_id, None)
            if gone is not None:
                self.capacity.dismiss(gone)
            if gone is not None and gone.sink is not None:
                gone.sink.close_moved(self._raft.leader_http)

    def _catch_up(self, worker_id: int, session: Session) -> None:
        """What a worker was told while it was away, or by the last leader."""
        self._follow_change(worker_id)
        asked = self.asked_to_stop(worker_id)
        if asked and session.sink is not None and self.sessions.get(worker_id) is session:
            session.sink.send_stop(asked)

    def _follow_change(self, worker_id: int) -> None:
        session = self.sessions.get(worker_id)
        row = self._raft.state.tables.workers.get(worker_id)
        if session is None or row is None:
            return
        self._follow_offer(session)
        if row.draining and not session.draining:
            session.draining = True
            if session.sink is not None:
                session.sink.send_drain()

    def _follow_offer(self, session: Session) -> None:
        """It can be given what the state says that it offers, unless it drains or is away."""
        row = self._raft.state.tables.workers.get(session.worker_id)
        if row is None or row.draining or session.sink is None:
            self.capacity.dismiss(session)
        else:
            self.capacity.admit(session, row.spec)


class _Answer:
    """For who waits in a task."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def booked(self, refused: list[int]) -> None:
        if not self.future.done():
            self.future.set_result(refused)

    def failed(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # whoever gave up waiting must not cause a warning
