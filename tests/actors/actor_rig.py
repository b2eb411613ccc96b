"""One leader on virtual time, with a log that commits when the test says so."""

from __future__ import annotations

import asyncio
import functools
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

from chaos.sim.clock import SimClock
from chaos.sim.loop import run_virtual
from cluster.actors.actor import Actor
from cluster.actors.assigned import Assigned
from cluster.actors.desk import WorkerDesk
from cluster.actors.detector import Detector
from cluster.actors.dispatcher import Dispatcher
from cluster.actors.express import Express
from cluster.actors.live import LiveBoard
from cluster.actors.proposer import Proposer
from cluster.actors.services import Assignment
from cluster.actors.submissions import Submissions
from cluster.actors.supervisor import Supervisor
from cluster.actors.waiters import Waiters
from cluster.consensus import ConsensusConfig, Outcome, PeerStatus, ProposalCallback, Role
from cluster.consensus.members import Members, first_members
from cluster.machine.commands import Command, JobGroup, SubmitJobs, decode_batch
from cluster.machine.levels import HIGHEST_LEVEL
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.results import Submitted
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import RaftState

LATENCY_S = 0.001
GRACE_MS, TTL_MS = 1_000, 3_000
SPEC = WorkerSpec("w", 4, ("default",), ("work",))


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on the virtual loop."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        run_virtual(test(*arguments, **named))

    return run


def fail(reason: str) -> None:
    raise AssertionError(reason)


class ManualLog:
    """Consensus of one: commits by itself after LATENCY_S, or by hand when `held`."""

    def __init__(self, config: ConsensusConfig, machine: RaftState, on_role: Any) -> None:
        self.machine = machine
        self.on_role = on_role
        self.role, self.term, self.leader_id = Role.FOLLOWER, 0, cast(str | None, None)
        self.commit_index = self.applied_index = 0
        self.held = False
        self.refusing = False
        self.refusal = "no"
        self.pending: deque[tuple[bytes, ProposalCallback]] = deque()
        self.entries: list[bytes] = []
        self.others: list[PeerStatus] = []

    def become(self, role: Role) -> None:
        self.role = role
        self.term += role is Role.LEADER
        self.leader_id = "me" if role is Role.LEADER else None
        self.on_role(role, self.term, self.leader_id)

    def propose(self, entry: bytes, callback: ProposalCallback) -> None:
        loop = asyncio.get_running_loop()
        if self.role is not Role.LEADER or self.refusing:
            loop.call_soon(callback, Outcome.REFUSED, self.refusal)
            return
        self.pending.append((entry, callback))
        if not self.held:
            loop.call_later(LATENCY_S, self.commit)

    def commit(self, count: int = 1) -> None:
        for _ in range(min(count, len(self.pending))):
            entry, callback = self.pending.popleft()
            self.entries.append(entry)
            self.commit_index = self.applied_index = len(self.entries)
            callback(Outcome.APPLIED, self.machine.apply(entry, len(self.entries)))

    def release(self) -> None:
        """Commit what waits, and from now on by itself."""
        self.held = False
        self.commit(len(self.pending))

    def lose(self, committed: bool) -> None:
        """The answer of the oldest proposal gets lost; it commits or it never does."""
        entry, callback = self.pending.popleft()
        if committed:
            self.entries.append(entry)
            self.machine.apply(entry, len(self.entries))
        callback(Outcome.UNKNOWN, "lost")

    def peers(self) -> list[PeerStatus]:
        return self.others

    def members(self) -> Members:
        return first_members(["me", *(peer.id for peer in self.others)])

    def commands(self) -> list[Command]:
        """Everything in the log, flattened."""
        return [command for entry in self.entries for command in decode_batch(entry).commands]


class FakeSink:
    """Keeps what the desk sends, in order."""

    def __init__(self) -> None:
        self.jobs: list[Assignment] = []
        self.events: list[tuple[str, Any]] = []

    def send_jobs(self, jobs: Assigned) -> None:
        self.jobs += jobs.rows()
        self.events.append(("jobs", [(job.job_id, job.attempt) for job in jobs.rows()]))

    def send_cancel(self, attempts: list[tuple[int, int]]) -> None:
        self.events.append(("cancel", attempts))

    def send_stop(self, attempts: list[tuple[int, int]]) -> None:
        self.events.append(("stop", attempts))

    def send_drain(self) -> None:
        self.events.append(("drain", None))

    def close_moved(self, leader_http: str | None) -> None:
        self.events.append(("moved", leader_http))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    def ids(self) -> list[int]:
        return [job.job_id for job in self.jobs]


class Rig:
    """The parts of one node, without edge and disk. Make it inside a running loop."""

    def __init__(self, level: int = HIGHEST_LEVEL, on_fatal: Callable[[str], None] = fail) -> None:
        self.clock = SimClock(asyncio.get_running_loop())
        config = ConsensusConfig("me", "me", (), Path("/nowhere"), on_fatal=on_fatal)
        self.raft = RaftState(config, self.clock, "me", cast(Any, self._make_log), level=level)
        self.ready = ReadyQueues()
        self.raft.on_effects(lambda effects, _: self.ready.feed(effects))
        self.raft.on_restored(self.ready.rebuild)
        self.proposer = Proposer(self.raft)
        self.live = LiveBoard(self.raft)
        self.waiters = Waiters(self.raft)
        self.desk = WorkerDesk(
            self.raft, self.proposer, self.clock, self.live, GRACE_MS, random.Random(1)
        )
        self.dispatcher = Dispatcher(self.raft, self.proposer, self.desk, self.ready)
        self.express = Express(self.raft, self.proposer, self.desk, self.ready, self.dispatcher)
        self.submissions = Submissions(self.proposer, self.express)
        self.detector = Detector(self.raft, self.proposer, self.desk, self.clock, TTL_MS)
        self.given_up: list[str] = []
        self.duties = Supervisor([], self.given_up.append)

    def _make_log(self, config: ConsensusConfig, machine: RaftState, on_role: Any) -> ManualLog:
        self.log = ManualLog(config, machine, on_role)
        return self.log

    async def lead(self, actors: Sequence[Actor] = ()) -> None:
        """Win an election, open the epoch, start `actors`."""
        self.log.become(Role.LEADER)
        await asyncio.sleep(2 * LATENCY_S)  # the epoch opens with one commit
        assert self.raft.is_leader
        self.duties = Supervisor(actors, self.given_up.append)
        self.duties.start()
        await asyncio.sleep(0)

    async def resign(self) -> None:
        self.log.become(Role.FOLLOWER)
        await self.duties.stopped()

    async def submit(self, count: int = 1, spec: JobSpec | None = None, run_at_ms: int = 0) -> int:
        """Returns the first id."""
        group = JobGroup(spec or JobSpec("work"), [b"null"] * count, run_at_ms)
        result = await self.proposer.propose(SubmitJobs([group]))
        assert isinstance(result, Submitted)
        return result.first

    async def worker(self, credit: int, spec: WorkerSpec = SPEC) -> tuple[int, FakeSink]:
        """A new worker with free slots."""
        sink = FakeSink()
        worker_id, _ = await self.desk.register(spec, 0, [], sink)
        self.desk.grant(worker_id, credit)
        return worker_id, sink

    def credit(self, worker_id: int) -> int:
        return self.desk.sessions[worker_id].credit
