"""SIGSTOP of nodes: they are silent, keep their connections, and wake up in another world."""

from __future__ import annotations

import asyncio
import signal

from chaos.live.harm.field import Field
from chaos.live.harm.kill import die
from chaos.live.processes import Child

FLAP_S = (0.4, 1.2)  # around the election timeout


async def sleep(seconds: float, *victims: Child) -> None:
    for victim in victims:
        victim.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        for victim in victims:
            victim.signal(signal.SIGCONT)


async def one(field: Field, seconds: float) -> None:
    await sleep(seconds, field.node)


async def leader(field: Field, seconds: float) -> None:
    await sleep(seconds, await field.leader())


async def follower(field: Field, seconds: float) -> None:
    await sleep(seconds, await field.follower())


async def two(field: Field, seconds: float) -> None:
    await sleep(seconds, *field.rng.sample(field.cluster.nodes, 2))


async def flapping(field: Field, seconds: float) -> None:
    """Whoever leads falls asleep for long enough to lose it, again and again."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + seconds
    while loop.time() < until_s:
        await sleep(field.rng.uniform(*FLAP_S), await field.leader())


async def and_kill(field: Field, seconds: float) -> None:
    """The leader sleeps, its successor dies: who wakes up may be needed, or deposed."""
    old = await field.leader()
    old.signal(signal.SIGSTOP)
    try:
        await die(seconds, await field.cluster.leader(but=old))
    finally:
        old.signal(signal.SIGCONT)
