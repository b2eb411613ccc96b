"""Bits that flip at rest: who reads them must refuse or recover, and never believe them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.sim.raft.platter import needed_bytes
from chaos.sim.raft.plots.stage import GiveUp, Plot, Stage

if TYPE_CHECKING:
    from chaos.sim.raft.node import Machine


class Damage(Stage):
    def plots(self) -> tuple[Plot, ...]:
        if self.world.size < 3:
            return ()
        return (self.rotten_journal, self.rotten_snapshots, self.rotten_stream)

    async def rotten_journal(self) -> None:
        """B7: what was written is not what is read when the node starts again."""
        await self._damaged_at_rest(".seg", self.rng.choice((1, 3)))

    async def rotten_snapshots(self) -> None:
        """B5: the newest snapshot of a node is damaged, or all are, when it starts again."""
        leader = await self.leader()
        for _ in range(2):
            await self.commit(leader, 20)
            for life in self.world.lives():
                self.nemesis.snapshot_at(life)
            await asyncio.sleep(0.1)
        await self._damaged_at_rest(".snap", self.rng.choice((1, 9)))

    async def _damaged_at_rest(self, suffix: str, files: int) -> None:
        self.need(3)
        victim = self.rng.choice(self.others())
        (victim.kill if self.rng.random() < 0.5 else victim.power_off)()
        try:
            for path in self.files_of(victim, suffix)[:files]:
                victim.damage(path)
        finally:
            victim.start()
        await asyncio.sleep(self.rng.uniform(0.3, 1.5))

    async def rotten_stream(self) -> None:
        """A5: a leader's snapshot is damaged, which it learns from who gets it."""
        self.need(3)
        leader = await self.leader()
        follower = self.others(leader.node)[0]
        await self.lag(leader, follower, 0.4)
        for path in self.files_of(leader.node, ".snap")[:1]:
            leader.node.damage(path)
        await self.until(lambda: not self.fabric.cuts)
        await asyncio.sleep(1.5)

    def files_of(self, machine: Machine, suffix: str) -> list[Path]:
        """Those that can be damaged, the newest first."""
        storage = machine.storage
        paths = [path for path in storage.files() if path.suffix == suffix]
        found = [path for path in reversed(paths) if needed_bytes(storage, path)]
        if not found:
            raise GiveUp
        return found
