"""Members that come and go, alive or dead, one by one or all at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chaos.sim.raft.plots.stage import GiveUp, Plot, Stage

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life, Machine


class Members(Stage):
    def plots(self) -> tuple[Plot, ...]:
        return (
            self.come,
            self.go,
            self.come_and_go,
            self.two_strangers,
            self.late_comer,
        )

    def anywhere(self) -> tuple[Plot, ...]:
        """Those that need no spare."""
        return (self.lost_disk,) if self.world.size > 2 else ()

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

    async def late_comer(self) -> None:
        """A7: a new member joins a long log, and gets its vote when it has nearly all of it."""
        spares = self._spares()
        if not spares:
            raise GiveUp
        leader = await self.leader()
        for _ in range(20):
            await self.commit(leader, 25)
        self._add(leader, spares[0])
        await self._until_voter(spares[0])

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

    async def lost_disk(self) -> None:
        """A7: a disk is lost with all that it promised. The node that is started without it must be
        nobody's majority, whoever restarts beside it, and comes back by being added again."""
        self.need(3)
        leader = await self.leader()
        victim = self.others(leader.node)[0]
        await self.until(lambda: self.world.repair.may_lose(victim))
        if self.rng.random() < 0.5:  # what it acknowledged last, only the leader has as well
            self.sever(victim, self.others(victim, leader.node), 0.3)
            self.sever(leader.node, self.others(victim, leader.node)[:1], 1.5)
            await self.commit(leader, 3)
        if not self.world.repair.may_lose(victim):
            raise GiveUp
        self.world.repair.lose(victim)
        if self.rng.random() < 0.7:
            victim.start()
        for machine in self.others(victim)[: self.rng.randint(0, 2)]:
            machine.kill()
            self.nemesis.later(0.02, 1.0, machine.start)
        await asyncio.sleep(self.rng.uniform(0.2, 2.0))
        await self.world.repair.bring_back(victim)
