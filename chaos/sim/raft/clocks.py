"""Clocks that disagree and chance that repeats: what `pin` is given instead of the real ones."""

from __future__ import annotations

import asyncio
from random import Random

from chaos.sim.clock import EPOCH_MS
from chaos.sim.raft.loop import BEING, NodeLoop


class NodeClock:
    """Both clocks of one machine: the monotonic one began somewhere and runs a little wrong, the
    wall clock is off by anything and jumps. A machine keeps its clocks across restarts."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: Random) -> None:
        self._loop = loop
        self.rate = 1.0 + rng.choice((0.0, 0.0, rng.uniform(-0.03, 0.03)))
        self._wall_offset_ms = rng.choice((0, 0, rng.randint(-5_000, 5_000)))

        self.began_s = rng.uniform(10, 100_000)
        self.spent_s = 0.0

    def monotonic(self) -> float:
        return self.began_s + (self._loop.time() + self.spent_s) * self.rate

    def now_ms(self) -> int:
        return EPOCH_MS + round(self._loop.time() * 1000) + self._wall_offset_ms

    def monotonic_ms(self) -> int:
        return round(self.monotonic() * 1000)

    def jump(self, delta_ms: int) -> None:
        self._wall_offset_ms += delta_ms


class SimSurroundings:
    """`pin.Surroundings` of all nodes at once: each reads its own clock, all share one chance."""

    def __init__(self, loop: NodeLoop, rng: Random) -> None:
        self._loop = loop
        self._jumping = loop.jumping
        self.random = rng.random
        self._rng = rng

    def monotonic(self) -> float:
        """Read very often, hence without a call more than needed."""
        being = BEING.get()
        if being is None:
            return self._loop.time()
        clock = being.clock
        return clock.began_s + (self._jumping.now_s + clock.spent_s) * clock.rate

    def token(self, count: int) -> bytes:
        return self._rng.randbytes(count)
