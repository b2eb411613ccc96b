"""The network between the nodes: cut, one-way, partly, slow, lossy, reset.

Only Raft connections go through the wires. What nodes say over HTTP, clients and workers are not
cut off: so a node without a leader is still asked, which is the harder case.
"""

from __future__ import annotations

import asyncio

from chaos.live.harm.field import Field
from chaos.live.wires import Wire

SLOW_S = 0.05
LOST = 0.15


async def _during(seconds: float, wires: list[Wire], **fault: float | bool) -> None:
    for wire in wires:
        wire.set(**fault)
    try:
        await asyncio.sleep(seconds)
    finally:
        for wire in wires:
            wire.heal()


async def off(field: Field, seconds: float) -> None:
    """One node hears nobody and is heard by nobody."""
    await _during(seconds, field.cables.around(field.node.name), cut=True)


async def leader_off(field: Field, seconds: float) -> None:
    await _during(seconds, field.cables.around((await field.leader()).name), cut=True)


async def leader_deaf(field: Field, seconds: float) -> None:
    """It is heard, and hears no answer."""
    await _during(seconds, field.cables.towards((await field.leader()).name), cut=True)


async def leader_mute(field: Field, seconds: float) -> None:
    await _during(seconds, field.cables.away_from((await field.leader()).name), cut=True)


async def partial(field: Field, seconds: float) -> None:
    """Two nodes do not reach one another, both reach all others."""
    one, other = field.rng.sample([node.name for node in field.cluster.nodes], 2)
    await _during(seconds, field.cables.between(one, other), cut=True)


async def everywhere(field: Field, seconds: float) -> None:
    await _during(seconds, field.cables.all, cut=True)


async def slow(field: Field, seconds: float) -> None:
    await _during(seconds, field.cables.all, delay_s=SLOW_S)


async def lossy(field: Field, seconds: float) -> None:
    await _during(seconds, field.cables.around(field.node.name), lost=LOST)


async def reset(field: Field, seconds: float) -> None:
    """All connections end at once; new ones are welcome."""
    field.cables.reset()
    await asyncio.sleep(seconds)
