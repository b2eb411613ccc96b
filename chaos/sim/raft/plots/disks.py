"""Disks that hang, and power that goes at any moment of a busy journal."""

from __future__ import annotations

import asyncio

from chaos.sim.raft.plots.stage import Plot, Stage

HUNG_NOTICED_S = 5.0


class Disks(Stage):
    def plots(self) -> tuple[Plot, ...]:
        told: tuple[Plot, ...] = (self.crowded_journal, self.orderly_end)
        if self.world.size >= 3:
            told += (self.hung_disk, self.hung_majority, self.killed_in_write)
        return told

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

    async def orderly_end(self) -> None:
        """A busy node is asked to stop: what it has in hand is on the disk when it is gone."""
        leader = await self.leader()
        leader.node.pace.fsync_s = (0.01, 0.06)
        self.world.users.flood(leader, self.rng.randint(1, 40))
        await asyncio.sleep(self.rng.uniform(0.0, 0.05))
        machine = leader.node if self.rng.random() < 0.5 else self.rng.choice(self.others())
        machine.stop()
        await self.until(lambda: machine.life is None)
        await asyncio.sleep(0.5)

    async def killed_in_write(self) -> None:
        """B1: a killed process leaves in the page cache what the next one counts; power goes."""
        self.need(3)
        leader = await self.leader()
        victim = self.rng.choice(self.others())
        before_s, victim.pace.fsync_s = victim.pace.fsync_s, (0.02, 0.06)
        for _ in range(self.rng.randint(1, 4)):
            self.world.users.flood(leader, self.rng.choice((1, 20)))
            await asyncio.sleep(self.rng.uniform(0.0, 0.02))
        victim.kill()
        victim.start()
        await asyncio.sleep(self.rng.uniform(0.03, 0.4))
        victim.power_off()
        victim.pace.fsync_s = before_s
        victim.start()

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
