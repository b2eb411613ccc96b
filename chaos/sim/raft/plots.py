"""Faults in a certain order: schedules that chance alone would need many years to hit upon.

Each is a known way to lose or fork acknowledged writes, or to lock a cluster up, if the guard that
stands against it is missing. They run beside the random faults, which vary them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from chaos.sim.raft.clients import KEYS
from cluster.consensus import TransferError

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life, Machine
    from chaos.sim.raft.world import World

Plot = Callable[[], Awaitable[None]]
PATIENCE_S = 3.0
MEMBERS_FOR_TWO_SIDES = 5
DEATH_NOTICED_S = 0.25  # an election timeout is longer
HUNG_NOTICED_S = 5.0


class GiveUp(Exception):
    """The cluster is not in the state that the plot needs; the next one may fare better."""


class Plots:
    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.fabric = world.fabric
        self.nemesis = world.nemesis
        self.all: tuple[Plot, ...] = (self.die_after_ack, self.crowded_journal)
        if world.size >= 3:
            self.all += (
                self.deposed_leader,
                self.lost_acks,
                self.old_snapshot,
                self.quorum_installs,
                self.torn_stream,
                self.plain_death,
                self.hung_disk,
                self.mute_leader,
                self.busy_transfer,
                self.hung_majority,
            )
        if world.size >= MEMBERS_FOR_TWO_SIDES:
            self.all += (self.stalled_acks, self.split_term) * 2
        self.changes: tuple[Plot, ...] = (
            self.come,
            self.go,
            self.come_and_go,
            self.two_strangers,
        )
        if world.shape.plots:
            self.all = self.changes = tuple(getattr(self, name) for name in world.shape.plots)

    async def tell(self, count: int) -> None:
        for _ in range(count):
            changes = self.changes if len(self.world.machines) > self.world.size else ()
            plot = self.rng.choice(self.all if self.rng.random() < 0.5 else changes or self.all)
            self.world.trace(f"plot {plot.__name__}")
            try:
                await plot()
            except GiveUp:
                self.world.trace("the plot is given up")
            await asyncio.sleep(self.rng.uniform(0.0, 0.5))

    # Building blocks -----------------------------------------------------------------------

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

    # Plots ---------------------------------------------------------------------------------

    async def deposed_leader(self) -> None:
        """A1, A5, A10: a cut-off leader keeps a tail nobody has; its successor commits other
        entries, compacts, and streams a snapshot to it when it comes back."""
        self.need(3)
        old = await self.leader()
        self.sever(old.node, self.others(old.node), self.rng.uniform(1.5, 2.5))
        self.world.users.flood(old, self.rng.choice((1, 5, 30)))
        new = await self.leader(but=old.node, after=old.raft.epoch)
        key = self.rng.choice(KEYS)
        for _ in range(3):
            self.world.users.propose(new, key, ("put",))
            await asyncio.sleep(0.03)
            self.world.users.read_aside(old, key)
        await self.commit(new, self.rng.choice((10, 40, 120)))
        await self.snapshot(new)
        await self.until(lambda: not self.fabric.cuts)
        for _ in range(self.rng.choice((0, 0, 4))):
            await asyncio.sleep(self.rng.uniform(0.0, 0.06))
            self.fabric.reset_between(old.id, new.id)

    async def stalled_acks(self) -> None:
        """A4: an acknowledgement crosses two terms, and counts for entries that are long gone."""
        self.need(MEMBERS_FOR_TWO_SIDES)
        old = await self.leader()
        friend, *rest = self.others(old.node)
        term = old.raft.epoch
        self.fabric.cut(friend.id, old.id)  # what the friend says waits in the pipe
        try:
            for other in rest:
                self.sever(other, [old.node, friend], 1.6)
            self.world.users.flood(old, 25)
            await asyncio.sleep(0.05)
            new = await self.leader(but=old.node, after=term)
            await self.commit(new, 2)
            await self.until(lambda: set(self.fabric.cuts) <= {(friend.id, old.id)})
            await asyncio.sleep(0.2)
            self.fabric.cut(old.id, friend.id)
            try:
                self.nemesis.spawn(new, new.consensus.transfer_leadership(old.id, 1000))
                again = await self.leader(after=new.raft.epoch)
                for _ in range(3):
                    self.world.users.flood(again, 20)
                    await asyncio.sleep(0.03)
                self.fabric.heal(friend.id, old.id)
                await asyncio.sleep(0.1)
                self.fabric.cut(friend.id, old.id)
            finally:
                self.fabric.heal(old.id, friend.id)
        finally:
            self.fabric.heal(friend.id, old.id)

    async def die_after_ack(self) -> None:
        """A2, A3, B1: many batches are in flight; right after an answer its giver is gone."""
        leader = await self.leader()
        down = leader.node.power_off if self.rng.random() < 0.5 else leader.node.kill
        self.world.users.on_applied.append(down)
        for _ in range(self.rng.randint(1, 4)):
            self.world.users.flood(leader, self.rng.choice((3, 20, 60)))
            await asyncio.sleep(self.rng.uniform(0.0, 0.005))
        await asyncio.sleep(self.rng.uniform(0.05, 0.6))
        leader.node.start()

    async def lost_acks(self) -> None:
        """A2, A3: a follower has, and has said so, what its leader believes to be missing."""
        self.need(3)
        leader = await self.leader()
        follower = self.others(leader.node)[0]
        self.nemesis.cut(follower.id, leader.id, 0.2, 0.2)
        for _ in range(self.rng.randint(2, 6)):
            self.world.users.flood(leader, self.rng.randint(1, 20))
            await asyncio.sleep(self.rng.uniform(0.0, 0.03))
        self.fabric.reset_between(follower.id, leader.id)
        await asyncio.sleep(0.3)
        self.world.users.flood(leader, 5)

    async def _lag(self, leader: Life, follower: Machine, seconds: float) -> None:
        """Leaves a follower so far behind that it needs a snapshot."""
        self.sever(follower, self.others(follower), seconds)
        await self.commit(leader, self.rng.choice((20, 60)))
        await self.snapshot(leader)
        await self.commit(leader, 8)

    async def old_snapshot(self) -> None:
        """A5: a snapshot is still being checked when a new leader sends the log itself."""
        self.need(3)
        leader = await self.leader()
        follower, other, *_ = self.others(leader.node)
        follower.pace.call_s = (0.5, 1.2)
        await self._lag(leader, follower, 0.4)
        await self.until(lambda: not self.fabric.cuts)
        await asyncio.sleep(self.rng.uniform(0.1, 0.4))
        self.nemesis.spawn(leader, leader.consensus.transfer_leadership(other.id, 500))
        new = await self.leader(but=leader.node)
        await self.commit(new, 10)
        await asyncio.sleep(1.0)
        follower.pace.call_s = (0.0005, 0.01)

    async def quorum_installs(self) -> None:
        """C4: the majority needs a follower that is busy installing a snapshot."""
        self.need(3)
        leader = await self.leader()
        follower, *rest = self.others(leader.node)
        follower.pace.call_s = (0.1, 0.2)
        follower.pace.stall_s = 1.2  # longer than a leader waits for its majority
        await self._lag(leader, follower, 0.4)
        term = leader.raft.epoch
        voters = leader.probe.voters if leader.probe is not None else ()
        if follower.id not in voters:
            raise GiveUp
        doomed = [machine for machine in rest if machine.id in voters]
        for machine in doomed[: (len(voters) - 1) // 2]:  # what is left is a bare majority
            machine.kill()
        await asyncio.sleep(2.2)
        follower.pace.call_s, follower.pace.stall_s = (0.0005, 0.01), 0.0
        if self.world.is_calm and not leader.is_over and leader.raft.epoch != term:
            self.world.fail(f"{leader.id} lost its leadership while a follower installed")
        for machine in rest:
            machine.start()

    async def torn_stream(self) -> None:
        """B13, C5: the link breaks while a snapshot comes over it, and newer ones replace it."""
        self.need(3)
        leader = await self.leader()
        follower = self.others(leader.node)[0]
        await self._lag(leader, follower, 0.3)
        await self.until(lambda: not self.fabric.cuts)
        for _ in range(self.rng.randint(2, 8)):
            await asyncio.sleep(self.rng.uniform(0.0, 0.05))
            if self.rng.random() < 0.3:
                await self.commit(leader, 4)
                await self.snapshot(leader)
            else:
                self.fabric.reset_between(leader.id, follower.id)

    async def split_term(self) -> None:
        """C3: two nodes reach a new term, and nobody leads it; the others go on in the old one."""
        self.need(MEMBERS_FOR_TWO_SIDES)
        leader = await self.leader()
        first, second, third, *_ = self.others(leader.node)
        for machine in (first, second):
            self.sever(machine, [leader.node, *self.others(leader.node, first, second)], 1.5)
        self.fabric.heal(first.id, third.id)
        self.fabric.heal(third.id, first.id)
        try:
            await asyncio.sleep(self.rng.uniform(0.3, 0.8))
        finally:
            self.fabric.cut(first.id, third.id)
            self.fabric.cut(third.id, first.id)
        await asyncio.sleep(1.0)

    async def crowded_journal(self) -> None:
        """B1, B7, A9: power goes at any moment of a busy journal, also while it rolls over."""
        leader = await self.leader()
        for machine in self.world.machines.values():
            machine.pace.fsync_s = self.rng.choice(((0.0002, 0.002), (0.01, 0.06)))
        for _ in range(self.rng.randint(1, 5)):
            self.world.users.flood(leader, self.rng.randint(1, 40))
            await asyncio.sleep(self.rng.uniform(0.0, 0.02))
        await asyncio.sleep(self.rng.uniform(0.0, 0.03))
        for machine in self.others()[: self.rng.choice((1, 2, len(self.world.machines)))]:
            machine.power_off()
            self.nemesis.later(0.02, 0.8, machine.start)
        await asyncio.sleep(0.5)

    # Members -------------------------------------------------------------------------------

    def _spares(self) -> list[Machine]:
        return [one for one in self.world.machines.values() if not one.is_used]

    def _add(self, leader: Life, spare: Machine) -> None:
        spare.is_used = True
        spare.start()
        self.nemesis.spawn(leader, leader.consensus.add_member(spare.id, 1500))

    async def come(self) -> None:
        """A7: a new member listens, catches up, often by a snapshot, and gets its vote."""
        spares = self._spares()
        if not spares:
            raise GiveUp
        leader = await self.leader()
        if self.rng.random() < 0.5:
            await self.commit(leader, 30)
            await self.snapshot(leader)
        self._add(leader, spares[0])
        if self.rng.random() < 0.3:
            self.world.users.on_applied.append(leader.node.kill)
        await self._until_voter(spares[0])
        leader.node.start()

    async def _until_voter(self, machine: Machine) -> None:
        def votes() -> bool:
            lives = self.world.lives()
            return any(life.probe and machine.id in life.probe.voters for life in lives)

        await self.until(votes)

    async def go(self) -> None:
        """A7: a member is taken out, alive or dead; it must not be missed, nor disturb."""
        leader = await self.leader()
        voters = leader.probe.voters if leader.probe is not None else ()
        if len(voters) <= max(2, self.world.size - 1):
            raise GiveUp
        victim = self.rng.choice([one for one in self.others(leader.node) if one.id in voters])
        if self.rng.random() < 0.4:
            victim.kill()
        self.nemesis.spawn(leader, leader.consensus.remove_member(victim.id, 1500))
        await asyncio.sleep(self.rng.uniform(0.0, 1.5))
        if leader.probe is None or victim.id not in leader.probe.members:
            await self._until_gone(victim)
            victim.retire()
        victim.start()

    async def _until_gone(self, machine: Machine) -> None:
        """Its removal is committed: whoever leads from now on knows it."""

        def gone() -> bool:
            return machine.id not in self.world.invariants.members

        await self.until(gone)

    async def come_and_go(self) -> None:
        """A7: both at once, asked of whoever believes to lead."""
        leader = await self.leader()
        victim = self.others(leader.node)[0]
        for spare in self._spares()[:1]:
            self._add(leader, spare)
        for life in self.world.lives():
            if life.raft.epoch and self.world.size > 2:
                self.nemesis.spawn(life, life.consensus.remove_member(victim.id, 1500))
        await asyncio.sleep(self.rng.uniform(0.1, 1.0))
        if victim.id not in self.world.invariants.members:
            victim.retire()

    async def two_strangers(self) -> None:
        """A7: a cut-off leader takes in two members that only it can reach; if it may take the
        second before the first is committed, two majorities exist that do not know each other."""
        self.need(3)
        spares = self._spares()
        if len(spares) < 2:
            raise GiveUp
        old = await self.leader()
        rest = self.others(old.node)
        for spare in spares:  # first it must know the cluster and be connected
            spare.is_used = True
            spare.start()
        await asyncio.sleep(0.8)
        self.sever(old.node, rest, 2.5)
        for spare in spares:
            for other in rest:
                self.nemesis.cut(spare.id, other.id, 2.5, 2.5)
                self.nemesis.cut(other.id, spare.id, 2.5, 2.5)
        for spare in spares:
            self._add(old, spare)
            await asyncio.sleep(0.1)
        self.world.users.flood(old, 5)
        new = await self.leader(but=old.node, after=old.raft.epoch)
        await self.commit(new, 5)
        self.world.users.flood(old, 5)
        await asyncio.sleep(1.5)

    # Plots that judge how well the cluster takes it, when nothing else goes wrong -------------

    async def plain_death(self) -> None:
        """A closed connection says more than a timeout."""
        self.need(3)
        old = await self.leader()
        await asyncio.sleep(0.5)
        began_s, term = self.world.loop.time(), old.raft.epoch
        old.node.kill()
        await self.leader(but=old.node, after=term)
        took_s = self.world.loop.time() - began_s
        self.world.trace(f"led again after {took_s:.3f} s")
        if self.world.is_quick and took_s > DEATH_NOTICED_S:
            self.world.fail(f"the death of {old.id} was noticed after {took_s:.3f} s")
        old.node.start()

    async def hung_disk(self) -> None:
        """A leader whose disk hangs makes way, although a leader's disk is in every quorum."""
        self.need(3)
        old = await self.leader()
        old.node.pace.hangs = True
        self.world.users.flood(old, 5)
        await asyncio.sleep(HUNG_NOTICED_S)
        if self.world.is_calm and old.raft.epoch and not old.is_over:
            self.world.fail(f"{old.id} leads on a disk that hangs")
        old.node.pace.hangs = False

    async def hung_majority(self) -> None:
        """C6: the leader hears everybody, and nobody's disk moves: proposals end all the same."""
        leader = await self.leader()
        hung = self.others(leader.node)[: len(self.others()) // 2 + 1]
        for machine in hung:
            machine.pace.hangs = True
        self.world.users.flood(leader, 10)
        await asyncio.sleep(self.world.deadline_s + 1.0)
        for machine in hung:
            machine.pace.hangs = False

    async def mute_leader(self) -> None:
        """Without a majority nobody believes in itself for long."""
        self.need(3)
        old = await self.leader()
        term = old.raft.epoch
        self.sever(old.node, self.others(old.node), 2.0)
        await asyncio.sleep(1.5)
        if self.world.is_calm and old.raft.epoch == term and not old.is_over:
            self.world.fail(f"{old.id} leads without hearing anybody")
        await asyncio.sleep(0.6)

    async def busy_transfer(self) -> None:
        """Leadership is handed over under load, to the very node that was meant to get it."""
        self.need(3)
        old = await self.leader()
        target = self.others(old.node)[0]
        await asyncio.sleep(0.3)
        if old.is_over or not old.raft.is_leader or not target.is_up:
            raise GiveUp
        self.world.users.flood(old, 100)
        work = old.consensus.transfer_leadership(target.id, 1500)
        try:
            self.world.users.flood(old, 30)
            await self.world.loop.create_task(work, context=old.context)
        except TransferError as error:
            if self.world.is_calm and target.id in old.consensus.members().voters:
                self.world.fail(f"a transfer under load failed: {error}")
