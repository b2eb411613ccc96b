"""The leader's own part of a job: dispatcher and proposer, with a log that commits at once.

Commits cost nothing here but `apply`; without disk, followers and sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

from bench.micro import replay
from bench.micro.timing import Step, Work
from cluster.actors.assigned import Assigned
from cluster.actors.desk import WorkerDesk
from cluster.actors.dispatcher import Dispatcher
from cluster.actors.live import LiveBoard
from cluster.actors.proposer import Proposer
from cluster.actors.services import Sink
from cluster.actors.supervisor import Supervisor
from cluster.api import frames
from cluster.clock import SystemClock
from cluster.consensus import ConsensusConfig, Outcome, ProposalCallback, Role
from cluster.machine.commands import JobGroup, SubmitJobs
from cluster.machine.levels import HIGHEST_LEVEL
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import RaftState

GRACE_MS = 2_000
SMALL = 10  # jobs at a time where no batch forms

Story = Callable[["Leader", int], Coroutine[Any, Any, Callable[[], Coroutine[Any, Any, None]]]]


def steps(jobs: int, folder: Path) -> list[Step]:
    return [
        Step("submit, proposed and applied, 1,000 at a time", jobs, _telling(_submit, jobs)),
        Step("assign: chosen, proposed, applied, framed", jobs, _telling(_assign, jobs)),
        Step("complete, proposed and applied, 1,000 at a time", jobs, _telling(_complete, jobs)),
        Step(f"submit and assign, {SMALL} at a time", jobs // 10, _telling(_trickle, jobs // 10)),
        Step("submit and assign, one at a time", jobs // 20, _telling(_single, jobs // 20)),
    ]


class LoneLog:
    """Consensus of one, without a disk: what is proposed is applied in the loop's next turn."""

    def __init__(self, config: ConsensusConfig, machine: RaftState, on_role: Any) -> None:
        self._machine = machine
        self._on_role = on_role
        self.role, self.term, self.leader_id = Role.FOLLOWER, 0, ""
        self.commit_index = self.applied_index = 0

    def lead(self) -> None:
        self.role, self.term, self.leader_id = Role.LEADER, 1, "me"
        self._on_role(self.role, self.term, self.leader_id)

    def propose(self, entry: bytes, callback: ProposalCallback) -> None:
        asyncio.get_running_loop().call_soon(self._commit, entry, callback)

    def _commit(self, entry: bytes, callback: ProposalCallback) -> None:
        self.applied_index = self.commit_index = self.applied_index + 1
        callback(Outcome.APPLIED, self._machine.apply(entry, self.applied_index))

    def peers(self) -> list[Any]:
        return []


class CountingSink:
    """A worker's connection that takes everything and says when it has enough."""

    def __init__(self) -> None:
        self.taken = 0
        self._wanted = 0
        self._enough = asyncio.Event()

    def send_jobs(self, jobs: Assigned) -> None:
        like, rest = jobs.columns()
        for each in like:
            frames.like(each)
            self.taken += len(each.job_ids)
        if rest:
            frames.jobs(rest)
            self.taken += len(rest)
        if self.taken >= self._wanted:
            self._enough.set()

    async def wait_for(self, count: int) -> None:
        self._wanted = count
        if self.taken < count:
            self._enough.clear()
            await self._enough.wait()


class Leader:
    """The parts of a node that leads; made inside a running loop."""

    def __init__(self) -> None:
        config, clock = ConsensusConfig("me", "me", (), Path("/nowhere")), SystemClock()
        self.raft = RaftState(config, clock, "me", cast(Any, LoneLog), level=HIGHEST_LEVEL)
        self.ready = ReadyQueues()
        self.raft.on_effects(lambda effects, _: self.ready.feed(effects))
        self.proposer = Proposer(self.raft)
        live = LiveBoard(self.raft)
        self.desk = WorkerDesk(self.raft, self.proposer, clock, live, GRACE_MS)
        self.dispatcher = Dispatcher(self.raft, self.proposer, self.desk, self.ready)
        self.duties = Supervisor([self.dispatcher], lambda actor: None)
        self.sink = CountingSink()
        self.worker_id = 0

    async def lead(self) -> None:
        opened = asyncio.Event()
        self.raft.on_leadership(lambda leads: opened.set())
        cast(LoneLog, self.raft.consensus).lead()
        await opened.wait()
        self.duties.start()
        sink = cast(Sink, self.sink)
        self.worker_id, _ = await self.desk.register(replay.WORKER, 0, [], sink)

    async def submit(self, count: int) -> None:
        await self.proposer.propose(SubmitJobs([JobGroup(replay.SPEC, [replay.PAYLOAD] * count)]))

    async def submit_all(self, jobs: int) -> None:
        for _ in range(jobs // replay.BATCH):
            await self.submit(replay.BATCH)

    async def assign_all(self, jobs: int) -> None:
        self.desk.grant(self.worker_id, jobs)
        await self.sink.wait_for(jobs)


def _telling(story: Story, jobs: int) -> Callable[[], Work]:
    """`story` prepares on a loop of its own and gives the part that is timed."""

    def prepare() -> Work:
        runner = asyncio.Runner()

        async def begin() -> Callable[[], Coroutine[Any, Any, None]]:
            leader = Leader()
            await leader.lead()
            return await story(leader, jobs)

        timed = runner.run(begin())

        def work() -> None:
            runner.run(timed())
            runner.close()

        return work

    return prepare


async def _submit(leader: Leader, jobs: int) -> Callable[[], Coroutine[Any, Any, None]]:
    return lambda: leader.submit_all(jobs)


async def _assign(leader: Leader, jobs: int) -> Callable[[], Coroutine[Any, Any, None]]:
    await leader.submit_all(jobs)
    return lambda: leader.assign_all(jobs)


async def _complete(leader: Leader, jobs: int) -> Callable[[], Coroutine[Any, Any, None]]:
    await leader.submit_all(jobs)
    await leader.assign_all(jobs)

    async def complete() -> None:
        for batch in replay.ids(jobs):
            await leader.desk.complete(leader.worker_id, batch, [1] * len(batch), None, None)

    return complete


def _in_steps(count: int) -> Story:
    async def story(leader: Leader, jobs: int) -> Callable[[], Coroutine[Any, Any, None]]:
        leader.desk.grant(leader.worker_id, jobs)

        async def timed() -> None:
            for done in range(0, jobs, count):
                await leader.submit(count)
                await leader.sink.wait_for(done + count)

        return timed

    return story


_trickle, _single = _in_steps(SMALL), _in_steps(1)
