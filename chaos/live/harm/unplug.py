"""Cables of a network segment are pulled: packets vanish, no connection is told.

Unlike behind the wires (see cut.py) this cuts everything: HTTP between the nodes, clients and
workers as well. Needs root (see segment.py).
"""

from __future__ import annotations

import asyncio

from chaos.live.harm.field import Field
from chaos.live.processes import NodeChild
from chaos.live.segment import Segment

SLOW_KBIT = 512


def _net(field: Field) -> Segment:
    assert field.segment is not None, "this scenario's cluster needs `segment = true`"
    return field.segment


async def _off(field: Field, seconds: float, node: NodeChild) -> None:
    net = _net(field)
    net.cut_off(field.cluster.nodes.index(node))
    try:
        await asyncio.sleep(seconds)
    finally:
        net.heal()


async def one(field: Field, seconds: float) -> None:
    await _off(field, seconds, field.node)


async def leader(field: Field, seconds: float) -> None:
    await _off(field, seconds, await field.leader())


async def pair(field: Field, seconds: float) -> None:
    """Two nodes do not reach one another, both reach all others."""
    net = _net(field)
    net.cut_between(field.rng.sample(range(len(field.cluster.nodes)), 2))
    try:
        await asyncio.sleep(seconds)
    finally:
        net.heal()


async def slow(field: Field, seconds: float) -> None:
    """What a node sends goes through a thin line."""
    net = _net(field)
    net.narrow(field.rng.randrange(len(field.cluster.nodes)), SLOW_KBIT)
    try:
        await asyncio.sleep(seconds)
    finally:
        net.heal()
