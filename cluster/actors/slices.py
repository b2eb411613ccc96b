"""Long calculations on the loop, in slices: heartbeats and answers leave in between."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TypeVar

from cluster.clock import Clock

T = TypeVar("T")

SLICE_MS = 4
SLICE_STEPS = 64  # also where the clock stands still, as in simulations


class Slices:
    """Counts steps and watches the clock; `step` lets others run when a slice is over."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steps = 0
        self._ends_ms = clock.monotonic_ms() + SLICE_MS

    async def step(self) -> None:
        self._steps += 1
        if self._steps < SLICE_STEPS and self._clock.monotonic_ms() < self._ends_ms:
            return
        await asyncio.sleep(0)
        self._steps = 0
        self._ends_ms = self._clock.monotonic_ms() + SLICE_MS

    async def run(self, work: Generator[None, None, T]) -> T:
        """Drives a generator that yields between its steps; what it returns."""
        while True:
            try:
                next(work)
            except StopIteration as done:
                answer: T = done.value
                return answer
            await self.step()
