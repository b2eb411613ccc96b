"""kill -9 of nodes, and their return."""

from __future__ import annotations

import asyncio
import signal

from chaos.live.harm.field import Field
from chaos.live.processes import Child


async def die(seconds: float, *victims: Child) -> None:
    """All at once; they come back one after the other."""
    for victim in victims:
        victim.signal(signal.SIGKILL)
    await asyncio.gather(*(victim.wait() for victim in victims))
    for victim in victims:
        await asyncio.sleep(seconds / len(victims))
        await victim.start()


async def one(field: Field, seconds: float) -> None:
    await die(seconds, field.node)


async def leader(field: Field, seconds: float) -> None:
    await die(seconds, await field.leader())


async def follower(field: Field, seconds: float) -> None:
    await die(seconds, await field.follower())


async def two(field: Field, seconds: float) -> None:
    await die(seconds, *field.rng.sample(field.cluster.nodes, 2))


async def everyone(field: Field, seconds: float) -> None:
    await die(seconds, *field.cluster.nodes)


async def storm(field: Field, seconds: float) -> None:
    """One node dies again and again while it recovers."""
    victim = field.node
    for _ in range(4):
        await die(seconds / 4, victim)
        await asyncio.sleep(field.rng.uniform(0.0, 0.5))
