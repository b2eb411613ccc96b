"""One simulated node: the real replica, edge services and leader duties, on a simulated log.

Wires the same parts as `cluster.node`, but for HTTP, disk and consensus. A crash ends every task
and timer of the node; a restart begins with what its disk held.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, cast

from chaos.sim.clock import SimClock
from chaos.sim.consensus import SimConsensus, Snapshot
from chaos.sim.history import SimHistory
from chaos.sim.rollout import DELAY_S, JudgedState
from cluster.actors.actor import Actor
from cluster.actors.archivist import Archivist
from cluster.actors.desk import WorkerDesk
from cluster.actors.detector import Detector
from cluster.actors.dispatcher import Dispatcher
from cluster.actors.express import Express
from cluster.actors.janitor import Janitor
from cluster.actors.live import LiveBoard
from cluster.actors.planner import Planner
from cluster.actors.proposer import Proposer
from cluster.actors.replanner import Replanner
from cluster.actors.scheduler import Scheduler
from cluster.actors.submissions import Submissions
from cluster.actors.supervisor import Supervisor
from cluster.actors.timekeeper import Timekeeper
from cluster.actors.upgrader import Upgrader
from cluster.actors.waiters import Waiters
from cluster.clock import Clock, GuardedClock
from cluster.consensus import Consensus, ConsensusConfig
from cluster.history import FinishedJob, History
from cluster.machine.levels import HIGHEST_LEVEL, Support
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import RaftState

if TYPE_CHECKING:
    from chaos.sim.link import Connection
    from chaos.sim.world import World

T = TypeVar("T")

WORKER_TTL_MS = 3_000
RECONNECT_GRACE_MS = 1_000
DEAD_LETTERS_MAX = 40

NODE: contextvars.ContextVar[SimNode | None] = contextvars.ContextVar("node", default=None)


@dataclass
class Disk:
    """What survives a crash."""

    snapshot: Snapshot | None = None
    history: dict[int, dict[int, FinishedJob]] = field(default_factory=dict)
    gaps: list[tuple[int, int]] = field(default_factory=list)  # skipped by installed snapshots


class SimNode:
    """A member of the cluster across its restarts; the parts belong to one incarnation."""

    raft: RaftState
    proposer: Proposer
    planner: Planner
    desk: WorkerDesk
    waiters: Waiters
    live: LiveBoard
    ready_queues: ReadyQueues
    dispatcher: Dispatcher
    submissions: Submissions
    duties: Supervisor
    consensus: SimConsensus
    history: SimHistory

    def __init__(self, world: World, node_id: str) -> None:
        self.world = world
        self.id = node_id
        self.clock = SimClock(world.loop, world.time)
        self.guarded: Clock = self.clock
        self.disk = Disk()
        self.alive = False
        self.incarnation = 0
        self.connections: dict[Connection, None] = {}
        self.context = contextvars.copy_context()
        self.tasks: dict[asyncio.Task[Any], None] = {}

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        self.incarnation += 1
        self.alive = True
        self.context = contextvars.copy_context()
        self.context.run(NODE.set, self)
        self.context.run(self._build)
        self.spawn(self._join())
        self.world.trace(f"start {self.id}")

    def crash(self) -> None:
        """kill -9: no goodbye, no callback, no flush."""
        self.alive = False
        self.world.trace(f"crash {self.id}")
        self.consensus.abort()
        self.history.crash()
        for task in list(self.tasks):
            task.cancel()
        self.tasks.clear()
        for connection in list(self.connections):
            connection.node_died()
        self.connections.clear()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something as part of this node."""
        return self.world.loop.create_task(work, context=self.context)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))

    # -- parts -----------------------------------------------------------------------------------

    def _build(self) -> None:
        world = self.world
        clock = GuardedClock(self.clock, world.guard_ms) if world.guard_ms else self.clock
        self.guarded = clock
        config = ConsensusConfig(
            self.id, self.id, tuple(i for i in world.node_ids if i != self.id), Path("/nowhere")
        )
        self.raft = self._make_raft(config, clock)
        self.ready_queues = ReadyQueues()
        self.history = SimHistory(world.loop, self.disk.history)
        raft = self.raft
        raft.on_effects(lambda effects, _: self.ready_queues.feed(effects))
        raft.on_restored(self.ready_queues.rebuild)
        Archivist(raft, cast(History, self.history))
        self.proposer = Proposer(raft)
        self.planner = Planner(raft, clock)
        self.live = LiveBoard(raft)
        self.waiters = Waiters(raft)
        rng = Random(world.rng.random())
        self.desk = WorkerDesk(raft, self.proposer, clock, self.live, RECONNECT_GRACE_MS, rng)
        self.dispatcher = Dispatcher(raft, self.proposer, self.desk, self.ready_queues)
        express = Express(raft, self.proposer, self.desk, self.ready_queues, self.dispatcher)
        self.submissions = Submissions(self.proposer, express)
        self.duties = Supervisor(
            [
                *self._upgrader(),
                Timekeeper(raft, self.proposer, clock),
                self.dispatcher,
                Scheduler(raft, self.proposer, clock),
                Replanner(raft, self.proposer, clock),
                Detector(raft, self.proposer, self.desk, clock, WORKER_TTL_MS),
                Janitor(raft, self.proposer, DEAD_LETTERS_MAX),
            ],
            lambda actor: world.fail(f"{self.id}: {actor} gave up"),
        )
        raft.on_leadership(self._on_leadership)
        raft.on_effects(lambda effects, index: world.observe(self, effects, index))

    def _make_raft(self, config: ConsensusConfig, clock: Clock) -> RaftState:
        make, rollout = cast(Any, self._make_consensus), self.world.rollout
        if rollout is None:
            return RaftState(config, clock, self.id, make, level=HIGHEST_LEVEL)
        support = Support(rollout.releases[self.id])
        told = replace(config, meta=support.meta(), on_fatal=partial(rollout.refuses, self))
        return JudgedState(rollout, self, told, clock, self.id, make, support)

    def _upgrader(self) -> list[Actor]:
        if self.world.rollout is None:
            return []
        return [Upgrader(self.raft, self.proposer, DELAY_S)]

    async def _join(self) -> None:
        try:
            await self.consensus.start()
        except ValueError as error:
            if self.world.rollout is None:
                raise
            self.world.rollout.refuses(self, str(error))

    def _make_consensus(
        self, config: ConsensusConfig, machine: RaftState, on_role: Callable[..., None]
    ) -> Consensus:
        consensus = SimConsensus(self.world.ledger, config, machine, on_role, self.world.fail)
        consensus.snapshot = self.disk.snapshot
        self.consensus = consensus
        return cast(Consensus, consensus)

    def _on_leadership(self, leads: bool) -> None:
        self.world.trace(f"{'leads' if leads else 'resigns'} {self.id} epoch {self.raft.epoch}")
        if leads:
            self.duties.start()
        else:
            self.duties.stop()

    # -- disk ------------------------------------------------------------------------------------

    async def snapshot(self) -> None:
        """Write a snapshot and drop the log before it."""
        index, chunks = self.consensus.applied_index, list(self.raft.snapshot())
        await self.raft.before_truncate(index)
        self.disk.snapshot = (index, chunks)
        self.world.trace(f"snapshot {self.id} at {index}")

    def install_from(self, leader: SimNode) -> None:
        """Take over the state of a node that is ahead."""
        before, index = self.consensus.applied_index, leader.consensus.applied_index
        if index > before and self.consensus is not leader.consensus:
            try:
                self.context.run(self.consensus.install, index, list(leader.raft.snapshot()))
            except ValueError as error:
                if self.world.rollout is None:
                    raise
                self.world.rollout.refuses(self, str(error))
            if self.consensus.applied_index == index:
                self.disk.snapshot = self.consensus.snapshot
                self.disk.gaps.append((before, index))
                self.world.trace(f"install {self.id} {before} -> {index}")
                self.world.restored(self, index)
