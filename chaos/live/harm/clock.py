"""Wall clocks jump, forward and back (see chaos/live/hurt_node.py)."""

from __future__ import annotations

import asyncio

from chaos.live.harm.field import Field
from chaos.live.processes import NodeChild

HOUR_MS = 3_600_000
# The scenarios' nodes believe half a second: the smallest are followed, the others refused.
STEPS_MS = (-HOUR_MS, -5_000, -800, -300, 300, 800, 5_000, HOUR_MS)


def apart_s(bound_s: float) -> float:
    """How far two clocks can be from each other that nodes believe, one after the other: a small
    jump back and a small one forward are more than either."""
    believed = [step for step in STEPS_MS if abs(step) <= bound_s * 1000]
    return (max(believed, default=0) - min(believed, default=0)) / 1000


def shift(node: NodeChild, off_ms: int) -> None:
    """From now on the node's wall clock is off by this much."""
    fresh = node.data / "clock.new"
    fresh.write_text(str(off_ms))
    fresh.replace(node.data / "clock")


async def _jump(field: Field, seconds: float, victim: NodeChild) -> None:
    shift(victim, field.rng.choice(STEPS_MS))
    try:
        await asyncio.sleep(seconds)
    finally:
        shift(victim, 0)


async def one(field: Field, seconds: float) -> None:
    await _jump(field, seconds, field.node)


async def leader(field: Field, seconds: float) -> None:
    await _jump(field, seconds, await field.leader())
