"""Simulated users: they submit with request keys, retry what they do not know, cancel and revive.

A client remembers only what was acknowledged to it; that is what the checkers hold the cluster to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded
from cluster.machine.commands import (
    CancelJobs,
    Command,
    JobGroup,
    RetryJobs,
    SubmitJobs,
)
from cluster.machine.model import JobSpec, RetrySpec
from cluster.machine.results import PerJob, Result, Submitted

if TYPE_CHECKING:
    from chaos.sim.node import SimNode
    from chaos.sim.world import World

T = TypeVar("T")

CALL_TIMEOUT_S = 6.0
REQUEST_TTL_MS = 30 * 86_400_000
LOST_ANSWER_PROBABILITY = 0.02
QUEUES, TASKS = ("default", "mail"), ("work", "send")
RETRY = RetrySpec("exponential", 100, 2_000)
TIMEOUT_MS = 2_000


class Unanswered(Exception):
    """No answer: nobody knows what became of the request."""


class SimClient:
    """One user at work until told to stop."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.stopped = False
        self.task = world.loop.create_task(self._work(), name=name)
        self._requests = 0
        self._jobs: list[int] = []

    # -- calls -----------------------------------------------------------------------------------

    async def _call(self, node: SimNode, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """One request to one node. Raises Unanswered or what the desk and proposer raise."""
        world = self.world
        await asyncio.sleep(world.wire_s())
        if not node.alive or not world.reachable(node):
            raise Unanswered
        task = node.spawn(work())
        task.add_done_callback(_look_at)  # also when nobody waits for it any more
        done, _ = await asyncio.wait([task], timeout=CALL_TIMEOUT_S)
        if not done or task.cancelled():
            raise Unanswered
        error = task.exception()
        await asyncio.sleep(world.wire_s())
        if not node.alive or world.rng.random() < LOST_ANSWER_PROBABILITY:
            raise Unanswered
        if error is not None:
            raise error
        return task.result()

    async def insist(self, command: Command) -> Result:
        """Propose until there is an answer. Only right for what may be said twice."""
        while True:
            node = self._leader()
            try:
                return await self._call(node, partial(propose, node, command))
            except (NotLeader, OutcomeUnknown, Overloaded, Unanswered):
                await asyncio.sleep(self.world.rng.uniform(0.02, 0.3))

    def _leader(self) -> SimNode:
        """Whom any node names, which may be wrong."""
        world = self.world
        asked = world.rng.choice(list(world.nodes.values()))
        leader_id = asked.raft.leader_id if asked.alive else None
        return world.nodes.get(leader_id or "", asked)

    # -- work ------------------------------------------------------------------------------------

    async def _work(self) -> None:
        rng = self.world.rng
        while not self.stopped:
            await asyncio.sleep(rng.expovariate(self.world.load))
            kind = rng.random()
            if kind < 0.6 or not self._jobs:
                await self._submit()
            elif kind < 0.8:
                await self._cancel()
            elif kind < 0.9:
                await self._revive()
            else:
                await self._wait()

    async def _submit(self) -> None:
        world, rng = self.world, self.world.rng
        self._requests += 1
        key = f"{self.name}-{self._requests}"
        count = 1 if rng.random() < 0.5 else rng.randint(2, 12)
        command = SubmitJobs([self._group(key, count)], key, self._requests, REQUEST_TTL_MS)
        world.requested(key, count)
        result = await self.insist(command)
        if not isinstance(result, Submitted):
            world.fail(f"{self.name}: submission {key} was answered {result!r}")
            return
        ids = result.ids or list(range(result.first, result.first + result.count))
        world.acknowledged(key, ids)
        self._jobs = (self._jobs + ids)[-60:]

    def _group(self, key: str, count: int) -> JobGroup:
        rng, now_ms = self.world.rng, self.world.latest_now_ms()
        spec = JobSpec(
            rng.choice(TASKS), rng.choice(QUEUES), rng.choice((1, 5, 5, 9)),
            rng.choice((0, 2, 4)), RETRY, TIMEOUT_MS,
        )  # fmt: skip
        payloads = [f"{key}/{position}".encode() for position in range(count)]
        kind = rng.random()
        if kind < 0.3:
            return JobGroup(spec, payloads, now_ms + rng.randint(50, 8_000))
        if kind < 0.4:
            return JobGroup(spec, payloads, 0, now_ms + rng.randint(500, 5_000))
        if kind < 0.5:
            return JobGroup(spec, payloads, 0, 0, now_ms + rng.randint(500, 8_000))
        if kind < 0.6:
            unique = [f"u{rng.randint(0, 30)}" for _ in payloads]
            return JobGroup(spec, payloads, 0, 0, 0, unique, rng.randint(0, 2), 1_000)
        return JobGroup(spec, payloads)

    async def _cancel(self) -> None:
        ids = self.world.rng.sample(self._jobs, min(len(self._jobs), 3))
        result = await self.insist(CancelJobs(ids, self.name))
        assert isinstance(result, PerJob), result
        for job_id, code in zip(ids, result.codes, strict=True):
            if code == 0:
                self.world.cancelled(job_id)

    async def _revive(self) -> None:
        ids = self.world.rng.sample(self._jobs, min(len(self._jobs), 5))
        delay_ms = self.world.rng.choice((0, 0, 1_500))
        run_at_ms = self.world.latest_now_ms() + delay_ms if delay_ms else 0
        await self.insist(RetryJobs(ids, run_at_ms))

    async def _wait(self) -> None:
        job_id = self.world.rng.choice(self._jobs)
        node = self.world.rng.choice(list(self.world.nodes.values()))

        async def wait() -> None:
            if await node.waiters.finished(job_id, 2.0):
                self.world.waited(node, job_id)

        try:
            await self._call(node, wait)
        except Unanswered:
            return


def _look_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def propose(node: SimNode, command: Command) -> Result:
    if isinstance(command, SubmitJobs):
        return await node.submissions.submit_alone(command)
    return await node.proposer.propose(command)
