"""More work than somebody can do: slow followers, long backlogs, full disks, poisoned entries."""

from __future__ import annotations

import asyncio

from chaos.sim.disk import NO_LIMIT
from chaos.sim.raft.plots.stage import Plot, Stage

SLOW_APPLY_S = 0.004


class Load(Stage):
    def plots(self) -> tuple[Plot, ...]:
        told: tuple[Plot, ...] = (self.poisoned_entry,)
        if self.world.size >= 3:
            told += (self.slow_follower, self.long_backlog, self.full_disk)
        return told

    async def slow_follower(self) -> None:
        """A follower's disk hangs, so it answers nothing; the others go on, entry by entry."""
        self.need(3)
        leader = await self.leader()
        follower = self.others(leader.node)[0]
        follower.pace.hangs = True
        try:
            for _ in range(160):
                self.world.users.flood(leader, 1)
                await asyncio.sleep(0.008)
        finally:
            follower.pace.hangs = False

    async def long_backlog(self) -> None:
        """A node on a slow machine starts again, and has all of its log to apply."""
        self.need(3)
        leader = await self.leader()
        victim = self.others(leader.node)[0]
        await self.commit(leader, self.rng.choice((30, 90)))
        victim.kill()
        await self.commit(leader, self.rng.choice((10, 30)))
        victim.pace.apply_s = SLOW_APPLY_S
        victim.start()
        await asyncio.sleep(1.0)
        victim.pace.apply_s = 0.0

    async def full_disk(self) -> None:
        """B8: the disk of one node, often of the leader, is full for a while; work goes on."""
        self.need(3)
        leader = await self.leader()
        victim = leader.node if self.rng.random() < 0.6 else self.others(leader.node)[0]
        storage = victim.storage
        storage.capacity_bytes = storage.used_bytes() + self.rng.randrange(2_000)
        try:
            for _ in range(8):
                self.world.users.flood(await self.leader(), 20)
                await asyncio.sleep(0.3)
        finally:
            storage.capacity_bytes = NO_LIMIT

    async def poisoned_entry(self) -> None:
        """C1: the machine raises on every node; the log goes on behind the entry."""
        leader = await self.leader()
        self.world.users.poison(leader)
        await self.commit(leader, 5)
