"""What the integers of a random move are read as, against the state.

An id is picked among those that exist; every sixth pick or so is nonsense on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cluster.machine.model import JobSpec
from cluster.machine.state import State

NONSENSE = (0, -1, 7_777, 1 << 63)
NAMES = ("mail", "report")
QUEUES = ("default", "slow")
TIMEOUTS_MS = (0, 500, 3_600_000)


class Move(NamedTuple):
    """`kind` indexes KINDS; the rest is interpreted by it."""

    kind: int
    a: int
    b: int
    c: int
    d: int


NUMBER_MAX = 11  # every field of a move is 0..11


def pick(ids: Sequence[int], choice: int) -> int:
    """One of `ids`, or now and then something that cannot be."""
    if choice == NUMBER_MAX or not ids:
        return NONSENSE[choice % len(NONSENSE)]
    return ids[choice % len(ids)]


def spec_of(choice: int) -> JobSpec:
    return JobSpec(
        NAMES[choice % 2],
        QUEUES[choice // 2 % 2],
        1 + choice % 3,
        choice % 3,
        timeout_ms=TIMEOUTS_MS[choice % 3],
        tags=("x",) if choice % 5 == 0 else (),
    )


def later(state: State, choice: int) -> int:
    """0, the past, now, or up to a few seconds ahead."""
    return (
        (0, max(state.now_ms - 7, 0), state.now_ms)[choice]
        if choice < 3
        else (state.now_ms + (choice - 2) ** 4)
    )
