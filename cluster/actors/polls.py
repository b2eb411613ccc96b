"""The long-poll twin of the worker stream: workers that fetch instead of being pushed.

A poll grants credit while it waits and takes it back when it ends; what was assigned in between
waits in the sink for the next poll. A poll or a heartbeat is the sign of life.
"""

from __future__ import annotations

import asyncio

from cluster.actors.assigned import Assigned
from cluster.actors.desk import Attempts, WorkerDesk
from cluster.actors.services import Assignment, NotLeader
from cluster.actors.session import Session
from cluster.clock import Clock
from cluster.machine.model import WorkerSpec
from cluster.raft_state import RaftState


class PollSink:
    """Keeps what the leader sends until the worker fetches it. Times are monotonic ms."""

    def __init__(self) -> None:
        self.jobs: list[Assignment] = []
        self.fetched_ms: dict[int, int] = {}  # job id -> when it was handed out
        self.moved = False
        self._arrived = asyncio.Event()

    def send_jobs(self, jobs: Assigned) -> None:
        self.jobs += jobs.rows()
        self._arrived.set()

    def send_cancel(self, attempts: Attempts) -> None:
        """The next heartbeat tells: what it runs is compared with what it holds."""
        gone = set(attempts)
        self.jobs = [job for job in self.jobs if (job.job_id, job.attempt) not in gone]

    def send_stop(self, attempts: Attempts) -> None:
        """The next heartbeat tells; what was not fetched yet is not handed out any more."""
        self.send_cancel(attempts)

    def send_drain(self) -> None:
        """The next heartbeat tells."""

    def close_moved(self, leader_http: str | None) -> None:
        self.moved = True
        self._arrived.set()

    def fetch(self, maximum: int, now_ms: int) -> list[Assignment]:
        taken, self.jobs = self.jobs[:maximum], self.jobs[maximum:]
        for job in taken:
            self.fetched_ms[job.job_id] = now_ms
        return taken

    async def arrival(self, wait_s: float) -> None:
        """Return when something came or time is up."""
        self._arrived.clear()
        try:
            await asyncio.wait_for(self._arrived.wait(), wait_s)
        except TimeoutError:
            return


class PollDesk:
    """Sessions of polling workers, on top of the desk. Raises KeyError for an unknown worker and
    NotLeader where the desk does."""

    def __init__(self, raft: RaftState, desk: WorkerDesk, clock: Clock, ttl_ms: int) -> None:
        self._raft = raft
        self._desk = desk
        self._clock = clock
        self._ttl_ms = ttl_ms

    async def register(self, spec: WorkerSpec) -> int:
        """The new worker's id."""
        worker_id, _ = await self._desk.register(spec, 0, [], PollSink())
        return worker_id

    async def poll(self, worker_id: int, maximum: int, wait_s: float) -> list[Assignment]:
        """Up to `maximum` jobs; waits up to `wait_s` for the first one."""
        session, sink = self._session(worker_id)
        session.seen_ms = self._clock.monotonic_ms()
        if not sink.jobs and not session.draining:
            try:
                await self._wait(session, sink, maximum, wait_s)
            finally:
                session.credit = 0
        if sink.moved:
            raise NotLeader(self._raft.leader_http)
        session.seen_ms = self._clock.monotonic_ms()
        return sink.fetch(maximum, session.seen_ms)

    async def _wait(self, session: Session, sink: PollSink, maximum: int, wait_s: float) -> None:
        """Wait in pieces, so that a long poll goes on counting as a sign of life."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        piece_s = self._ttl_ms / 3000
        while not sink.jobs and not sink.moved:
            left_s = until - loop.time()
            if left_s <= 0:
                return
            self._desk.grant(session.worker_id, maximum - session.credit)
            await sink.arrival(min(left_s, piece_s))
            session.seen_ms = self._clock.monotonic_ms()

    async def heartbeat(self, worker_id: int, running: Attempts) -> tuple[Attempts, Attempts, bool]:
        """`running` are the attempts at the worker. Returns those it must stop and forget, those
        it shall stop and report, and whether it shall drain. Jobs that were handed out but never
        arrived are taken back after one TTL."""
        session, sink = self._session(worker_id)
        now_ms = session.seen_ms = self._clock.monotonic_ms()
        held = self._desk.held(worker_id)
        await self._take_back_missing(worker_id, sink, held, set(running), now_ms)
        row = self._raft.state.tables.workers.get(worker_id)
        gone = [(i, a) for i, a in running if held.get(i) != a]
        asked = set(self._desk.asked_to_stop(worker_id))
        stopping = [attempt for attempt in running if attempt in asked]
        return gone, stopping, row is None or row.draining

    async def _take_back_missing(
        self, worker_id: int, sink: PollSink, held: dict[int, int], claimed: set[tuple[int, int]],
        now_ms: int,
    ) -> None:  # fmt: skip
        waiting = {job.job_id for job in sink.jobs}
        sink.fetched_ms = {
            job_id: sink.fetched_ms.get(job_id, now_ms) for job_id in held if job_id not in waiting
        }
        missing = [
            job_id
            for job_id, at_ms in sink.fetched_ms.items()
            if (job_id, held[job_id]) not in claimed and now_ms - at_ms >= self._ttl_ms
        ]
        if missing:
            await self._desk.release(worker_id, missing, [held[job_id] for job_id in missing])

    def _session(self, worker_id: int) -> tuple[Session, PollSink]:
        """The worker's session with its sink, made anew after a failover."""
        if not self._raft.is_leader:
            raise NotLeader(self._raft.leader_http)
        row = self._raft.state.tables.workers.get(worker_id)
        if row is None or row.spec.protocol != "poll":
            raise KeyError(worker_id)
        session = self._desk.sessions.get(worker_id)
        if session is None:
            session = Session(worker_id, None, self._clock.monotonic_ms(), self._ttl_ms)
            self._desk.add(session)
        sink = session.sink
        if not isinstance(sink, PollSink):
            sink = PollSink()
            self._desk.connect(session, sink)
        session.polls = True
        session.draining = row.draining
        return session, sink
