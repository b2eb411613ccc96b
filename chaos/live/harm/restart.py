"""Orderly ends and new starts."""

from __future__ import annotations

import asyncio

from chaos.live.harm.field import Field
from chaos.live.processes import NodeChild

READY_S = 60.0


async def again(node: NodeChild, seconds: float) -> None:
    await node.stop()
    await asyncio.sleep(seconds)
    await node.start()


async def leader(field: Field, seconds: float) -> None:
    await again(await field.leader(), seconds)


async def rolling(field: Field, seconds: float) -> None:
    """One after the other, each once the one before is ready: an upgrade."""
    for node in field.cluster.nodes:
        await again(node, seconds / len(field.cluster.nodes))
        await field.cluster.ready(READY_S)


async def storm(field: Field, seconds: float) -> None:
    """Whoever restarts them does not wait until they are ready."""
    for _ in range(3):
        for node in field.rng.sample(field.cluster.nodes, len(field.cluster.nodes)):
            await again(node, seconds / 9)
