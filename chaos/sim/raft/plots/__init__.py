"""Faults in a certain order: schedules that chance alone would need many years to hit upon.

Each is a known way to lose or fork acknowledged writes, or to lock a cluster up, if the guard that
stands against it is missing. They run beside the random faults, which vary them. Some also judge
how well the cluster takes it, when nothing else goes wrong.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chaos.sim.raft.plots.damage import Damage
from chaos.sim.raft.plots.disks import Disks
from chaos.sim.raft.plots.elections import Elections
from chaos.sim.raft.plots.load import Load
from chaos.sim.raft.plots.logs import Logs
from chaos.sim.raft.plots.members import Members
from chaos.sim.raft.plots.snapshots import Snapshots
from chaos.sim.raft.plots.stage import GiveUp, Plot, Stage

if TYPE_CHECKING:
    from chaos.sim.raft.world import World

THEMES: tuple[type[Stage], ...] = (Logs, Elections, Snapshots, Disks, Damage, Load)


class Plots:
    """Chooses what is told; a shape may ask for plots by name."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self._themes = [theme(world) for theme in THEMES]
        self._members = Members(world)
        self.all = tuple(plot for theme in self._themes for plot in theme.plots())
        self.all += self._members.anywhere()
        self.changes = self._members.plots()
        if world.shape.plots:
            self.all = self.changes = tuple(self._named(name) for name in world.shape.plots)

    def _named(self, name: str) -> Plot:
        for theme in (*self._themes, self._members):
            plot: Plot | None = getattr(theme, name, None)
            if plot is not None:
                return plot
        raise ValueError(f"there is no plot {name}")

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
