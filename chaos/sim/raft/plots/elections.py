"""Who leads: terms without a leader, leaders that are gone, mute or handing over."""

from __future__ import annotations

import asyncio

from chaos.sim.raft.plots.stage import MEMBERS_FOR_TWO_SIDES, GiveUp, Plot, Stage
from cluster.consensus import TransferError

DEATH_NOTICED_S = 0.25  # an election timeout is longer


class Elections(Stage):
    def plots(self) -> tuple[Plot, ...]:
        told: tuple[Plot, ...] = ()
        if self.world.size >= 3:
            told += (self.plain_death, self.mute_leader, self.busy_transfer)
        if self.world.size >= MEMBERS_FOR_TWO_SIDES:
            told += (self.split_term,) * 2
        return told

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
