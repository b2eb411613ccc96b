"""A simulated machine and the node that runs on it: real consensus over the real replicated state.

The machine (clock, disk, pace) outlives its nodes; a `Life` is one node from its start to its end.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.sim.raft.clients import POISON
from chaos.sim.raft.clocks import NodeClock
from chaos.sim.raft.host import NOBODY, Pace, SimHost
from chaos.sim.raft.loop import BEING
from chaos.sim.raft.platter import needed_bytes
from cluster.consensus import Consensus, ConsensusConfig, ConsensusStartError
from cluster.consensus.probe import Probe
from cluster.machine.effects import Effects
from cluster.machine.state import State
from cluster.raft_state import RaftState

if TYPE_CHECKING:
    from chaos.sim.raft.world import World

TIMER_S = (0.01, 0.02, 0.04)


class Machine:
    """One host: what survives its node."""

    def __init__(self, world: World, config: ConsensusConfig) -> None:
        self.world = world
        self.id = config.node_id
        self.clock = NodeClock(world.loop, world.rng)
        self.pace = Pace(world.rng)
        self.timer_s = world.rng.choice(TIMER_S)
        self.storage = world.open_storage(self.id)
        self.config = config
        self.life: Life | None = None
        self.lives = 0
        self.is_used = not config.join  # a spare waits until somebody wants it
        self.is_retired = False  # it was a member, and never will be again
        self.excused = False  # the next fatal error was ordered
        self.rot: list[Callable[[], None]] = []  # each repairs one damaged byte
        self.storage.named = self._named

    @property
    def is_up(self) -> bool:
        return self.life is not None

    @property
    def name(self) -> str:
        return self.id.partition(":")[0]

    def start(self) -> None:
        if self.life is None and self.is_used and not self.is_retired:
            self.lives += 1
            self.excused = self.pace.fails = False
            self.world.trace(f"{self.name} starts, life {self.lives}")
            self.life = Life(self)

    def retire(self) -> None:
        self.is_retired = True
        self.kill()

    def kill(self) -> None:
        """kill -9: what was written is in the page cache, and stays."""
        life, self.life = self.life, None
        if life is not None:
            self.world.trace(f"{self.name} is killed")
            life.end()

    def stop(self) -> None:
        """Asked to end, as by SIGTERM: what its log holds is on the disk then."""
        if self.life is not None and self.life.is_started:
            self.world.trace(f"{self.name} is asked to stop")
            self.life.stop()

    def has_stopped(self, life: Life) -> None:
        """The process has ended by itself; sometimes the power goes at the next moment."""
        if self.life is not life:
            return
        rng = self.world.rng
        self.life = None
        self.world.trace(f"{self.name} has stopped")
        self.world.invariants.stopped(life)
        life.end()
        if rng.random() < 0.5:
            self.world.lose_power(self)
        self.world.loop.call_later(rng.uniform(0.05, 1.5), self.start, context=NOBODY)

    def power_off(self) -> None:
        """What was not synced may be lost, in parts; nobody is told that the node is gone."""
        life, self.life = self.life, None
        if life is not None:
            self.world.fabric.power_off(self.id)
            life.end()
        self.world.lose_power(self)

    def replace_disk(self) -> None:
        """An empty one, in place of what was lost."""
        self.storage = self.world.open_storage(self.id)
        self.storage.named = self._named
        self.rot.clear()

    def pause(self) -> None:
        if self.life is not None and not self.life.is_paused:
            self.world.trace(f"{self.name} pauses")
            self.life.is_paused = True
            self.life.freeze()

    def resume(self) -> None:
        if self.life is not None and self.life.is_paused:
            self.world.trace(f"{self.name} resumes")
            self.life.is_paused = False
            self.life.resumed_s = self.world.loop.time()
            self.life.thaw()

    def damage(self, path: Path) -> None:
        """A bit flips at rest, in a byte that the file needs."""
        self.world.has_damage = True
        position = self.world.rng.choice(needed_bytes(self.storage, path))
        self.world.trace(f"{self.name}: {path.name} is damaged at byte {position}")
        self.rot.append(self.storage.rot(path, position, self.world.rng.randrange(8)))

    def restore_files(self) -> None:
        """What an operator does who has a backup."""
        for repair in self.rot:
            repair()
        self.rot.clear()

    def _named(self, path: Path) -> None:
        if self.life is not None:
            self.world.housekeeping.named(self.life, path)


class Busy(RaftState):
    """The shipped state on a machine that may be slow, and that chokes on what is poisoned."""

    def apply(self, entry: bytes, index: int) -> object:
        life = BEING.get()
        assert isinstance(life, Life) and life.raft is self, "a node runs in another one's name"
        if POISON in entry:
            raise RuntimeError("poison")
        if life.node.pace.apply_s:
            life.spend(life.node.pace.apply_s)
        return super().apply(entry, index)


class Life:
    """One process. Everything it schedules runs in `context`."""

    def __init__(self, machine: Machine) -> None:
        self.node = machine
        self.id = machine.id
        self.clock = machine.clock
        self.frozen: list[asyncio.Handle] | None = None
        self.is_over = False
        self.is_paused = False
        self.is_busy = False
        self.resumed_s = 0.0
        self.is_started = False
        self.is_stopping = False
        self.probe: Probe | None = None
        self.context = contextvars.copy_context()
        self.context.run(BEING.set, self)
        self.host = SimHost(self, machine.world.fabric)
        self.consensus: Consensus
        self.raft = self.context.run(self._make_raft)
        self._start = machine.world.loop.create_task(self._begin(), context=self.context)
        self._finish: asyncio.Task[None] | None = None

    def _make_raft(self) -> RaftState:
        config = replace(self.node.config, on_fatal=self._on_fatal)
        raft = Busy(config, self.node.clock, self.node.name, partial(Consensus, host=self.host))
        self.consensus = raft.consensus
        raft.on_effects(self._applied)
        raft.on_restored(self._restored)
        return raft

    async def _begin(self) -> None:
        try:
            await self.consensus.start()
        except ConsensusStartError as error:
            self.node.world.start_refused(self, str(error))
            return
        except Exception as error:
            if not self.is_over:
                self.node.world.fail(f"{self.id} breaks when it starts: {error!r}")
            return
        self.is_started = True

    def stop(self) -> None:
        loop = self.node.world.loop
        self._finish = self._finish or loop.create_task(self._stop(), context=self.context)

    async def _stop(self) -> None:
        self.moved()
        self.is_stopping = True
        await self.consensus.stop()
        self.node.world.loop.call_soon(self.node.has_stopped, self, context=NOBODY)

    def end(self) -> None:
        """The process is gone, whatever it was doing."""
        self.moved()
        self.node.clock.spent_s = 0.0
        self.node.world.loop.thaw(self)  # so that its tasks can come to their ends
        self.is_over = True
        self._start.cancel()
        self.context.run(self.consensus.abort)
        if self._finish is not None:  # then it was about to end, and does not do the rest
            self._finish.cancel()
            self.context.run(self.host.drop)

    # What the loop asks ------------------------------------------------------------------------

    def moved(self) -> None:
        if self.is_over:
            return
        if self.probe is None:
            self.probe = Probe.into(self.consensus)
        self.node.world.moved(self)
        if self.node.clock.spent_s and not self.is_busy:
            self._work_off()

    # Time that a node has no time for anything else -----------------------------------------------

    def spend(self, seconds: float) -> None:
        """The callback that runs now takes so much longer."""
        self.node.clock.spent_s += seconds

    def _work_off(self) -> None:
        """The world goes on until it is as late as the node believes."""
        self.node.world.housekeeping.turn_took(self, self.node.clock.spent_s)
        self.is_busy = True
        self.freeze()
        loop = self.node.world.loop
        loop.call_later(self.node.clock.spent_s, self._is_done, context=NOBODY)

    def _is_done(self) -> None:
        if not self.is_over:
            self.is_busy, self.node.clock.spent_s = False, 0.0
            self.thaw()

    def freeze(self) -> None:
        if self.frozen is None:
            self.frozen = []

    def thaw(self) -> None:
        if not self.is_paused and not self.is_busy:
            self.node.world.loop.thaw(self)

    # What happens inside -----------------------------------------------------------------------

    def _applied(self, effects: Effects, index: int) -> None:
        self.node.world.digests.applied(self, index, self.raft.state.digest)

    def _restored(self, state: State) -> None:
        self.node.world.digests.restored(self, state.digest)

    def _on_fatal(self, reason: str) -> None:
        self.node.world.node_died(self, reason)


def config_of(
    node_id: str, members: tuple[str, ...], settings: dict[str, object]
) -> ConsensusConfig:
    return ConsensusConfig(
        node_id=node_id,
        listen=node_id,
        peers=tuple(member for member in members if member != node_id),
        join=node_id not in members,
        data_dir=Path("/sim") / node_id.partition(":")[0],
        **settings,  # type: ignore[arg-type]
    )
