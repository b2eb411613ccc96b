"""What every plot is built of: waiting for a state of the cluster, cutting, filling the log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life, Machine
    from chaos.sim.raft.world import World
    from cluster.consensus.wire import Message

Plot = Callable[[], Awaitable[None]]
Overhear = Callable[["Life", str, "Message"], None]
PATIENCE_S = 3.0
MEMBERS_FOR_TWO_SIDES = 5


class GiveUp(Exception):
    """The cluster is not in the state that the plot needs; the next one may fare better."""


class Stage:
    """Has no memory of its own: each theme of plots is one, on the same world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.fabric = world.fabric
        self.nemesis = world.nemesis

    def plots(self) -> tuple[Plot, ...]:
        """What chance may choose in a world of this size."""
        raise NotImplementedError

    async def until(self, condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
        end = self.world.loop.time() + seconds
        while not condition():
            if self.world.loop.time() > end or self.nemesis.stopped:
                raise GiveUp
            await asyncio.sleep(0.005)

    async def leader(self, *, but: Machine | None = None, after: int = 0) -> Life:
        """A node that leads a term above `after`, once there is one."""
        found: list[Life] = []

        def look() -> bool:
            found[:] = [
                life
                for life in self.world.lives()
                if life.node is not but and life.raft.is_leader and life.raft.epoch > after
            ]
            return bool(found)

        await self.until(look)
        return max(found, key=lambda life: life.raft.epoch)

    def others(self, *but: Machine) -> list[Machine]:
        machines = self.world.machines.values()
        left = [one for one in machines if one not in but and one.is_used and not one.is_retired]
        if but and not left:
            raise GiveUp  # all others were removed
        self.rng.shuffle(left)
        return left

    def sever(self, machine: Machine, rest: list[Machine], seconds: float) -> None:
        """Nothing passes between one and the others until `seconds` have passed."""
        for other in rest:
            self.nemesis.cut(machine.id, other.id, seconds, seconds)
            self.nemesis.cut(other.id, machine.id, seconds, seconds)

    @contextlib.contextmanager
    def apart(self, one_side: list[Machine], other_side: list[Machine]) -> Iterator[None]:
        """Nothing passes between two sides meanwhile."""
        with contextlib.ExitStack() as stack:
            for one in one_side:
                for two in other_side:
                    stack.enter_context(self.mute(one, two))
                    stack.enter_context(self.mute(two, one))
            yield

    @contextlib.contextmanager
    def mute(self, source: Machine, target: Machine) -> Iterator[None]:
        """What one says to the other waits meanwhile."""
        self.fabric.cut(source.id, target.id)
        try:
            yield
        finally:
            self.fabric.heal(source.id, target.id)

    @contextlib.contextmanager
    def overhearing(self, react: Overhear) -> Iterator[None]:
        """`react(life, peer, message)` is called before anything leaves any node."""
        self.world.eavesdroppers.append(react)
        try:
            yield
        finally:
            self.world.eavesdroppers.remove(react)

    async def commit(self, life: Life, count: int) -> None:
        before = self.world.users.applied
        self.world.users.flood(life, count)
        await self.until(lambda: life.is_over or self.world.users.applied >= before + count // 2)

    async def snapshot(self, life: Life) -> None:
        self.nemesis.snapshot_at(life)
        await asyncio.sleep(self.rng.uniform(0.02, 0.1))

    def need(self, members: int) -> None:
        if len(self.others()) < members:
            raise GiveUp

    def has_all_voters(self, leader: Life) -> bool:
        """Every voter runs and the leader is connected with it: who is missing already, by another
        fault, would be one more than a plot takes away."""
        voters = leader.probe.voters if leader.probe is not None else ()
        return bool(voters) and all(peer == leader.id or leader.host.epoch(peer) for peer in voters)

    async def lag(self, leader: Life, follower: Machine, seconds: float) -> None:
        """Leaves a follower so far behind that it needs a snapshot: what was sent to it meanwhile
        is lost with its connection, and behind the snapshot the leader keeps little."""
        self.sever(follower, self.others(follower), seconds)
        await self.commit(leader, self.rng.choice((20, 60)))
        await self.snapshot(leader)
        await self.commit(leader, 8)
        self.fabric.reset_between(leader.id, follower.id)
