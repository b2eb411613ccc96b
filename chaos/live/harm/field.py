"""What a fault may reach for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from chaos.live.processes import Child, LocalCluster, NodeChild
from chaos.live.segment import Segment
from chaos.live.wires import Wires


@dataclass
class Field:
    cluster: LocalCluster
    rng: Random
    wires: Wires | None = None
    disk: Path | None = None  # a small file system that holds all data folders
    segment: Segment | None = None
    replaced: set[str] = field(default_factory=set)  # nodes that lost their data and came back

    @property
    def node(self) -> NodeChild:
        return self.rng.choice(self.cluster.nodes)

    @property
    def worker(self) -> Child:
        return self.rng.choice(self.cluster.workers)

    async def leader(self) -> NodeChild:
        return await self.cluster.leader()

    async def follower(self) -> NodeChild:
        leader = await self.leader()
        return self.rng.choice([node for node in self.cluster.nodes if node is not leader])

    @property
    def cables(self) -> Wires:
        assert self.wires is not None, "this scenario's cluster needs `wires = true`"
        return self.wires


# Does it, lets it last for some seconds, and undoes it: then every process runs, ready or not.
Strike = Callable[[Field, float], Awaitable[None]]
