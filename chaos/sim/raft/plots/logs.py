"""Whose entries count: leaders come and go while answers, resends and old tails cross."""

from __future__ import annotations

import asyncio

from chaos.sim.raft.clients import KEYS
from chaos.sim.raft.plots.stage import MEMBERS_FOR_TWO_SIDES, Plot, Stage


class Logs(Stage):
    def plots(self) -> tuple[Plot, ...]:
        told: tuple[Plot, ...] = (self.die_after_ack,)
        if self.world.size >= 3:
            told += (self.deposed_leader, self.lost_acks, self.reconnects)
        if self.world.size >= MEMBERS_FOR_TWO_SIDES:
            told += (self.stalled_acks,) * 2
        return told

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
        if self.rng.random() < 0.5:  # it hears nothing of how the new term began
            for link in self.fabric.links_of(old.id):
                self.fabric.reset(link)
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

    async def reconnects(self) -> None:
        """A4: a link breaks again and again. What was on its way over the old one arrives when the
        new one is up; what waits for the follower's slow disk was said over the old one."""
        self.need(3)
        leader = await self.leader()
        follower = self.others(leader.node)[0]
        before_s = follower.pace.fsync_s
        follower.pace.fsync_s = self.rng.choice((before_s, (0.2, 0.6)))
        self.fabric.spike_p, self.fabric.late_p = 0.3, 1.0
        try:
            for _ in range(self.rng.randint(3, 8)):
                self.world.users.flood(leader, self.rng.randint(1, 10))
                await asyncio.sleep(self.rng.uniform(0.01, 0.1))
                self.fabric.reset_between(leader.id, follower.id)
                await asyncio.sleep(self.rng.uniform(0.1, 0.3))
        finally:
            follower.pace.fsync_s = before_s
            self.nemesis.clear_up()
