"""A node's clocks in the simulation: the wall clock can be wrong, the monotonic one cannot."""

from __future__ import annotations

import asyncio

EPOCH_MS = 1_750_000_000_000  # an arbitrary morning; nothing may depend on it


class TrueTime:
    """What a perfect clock shows. Days pass at once when the world lets them: nobody runs then."""

    def __init__(self, loop: asyncio.AbstractEventLoop, epoch_ms: int = EPOCH_MS) -> None:
        self.loop = loop
        self.epoch_ms = epoch_ms

    def now_ms(self) -> int:
        return self.epoch_ms + round(self.loop.time() * 1000)

    def leap(self, delta_ms: int) -> None:
        self.epoch_ms += delta_ms


class SimClock:
    """Follows virtual time; `jump` moves the wall clock of this node only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, true: TrueTime | None = None) -> None:
        self._loop = loop
        self._true = true or TrueTime(loop)
        self._offset_ms = 0

    def now_ms(self) -> int:
        return self._true.now_ms() + self._offset_ms

    def monotonic_ms(self) -> int:
        return round(self._loop.time() * 1000)

    def jump(self, delta_ms: int) -> None:
        """The wall clock is corrected by `delta_ms`, forward or back."""
        self._offset_ms += delta_ms

    def set_offset(self, offset_ms: int) -> None:
        self._offset_ms = offset_ms

    @property
    def offset_ms(self) -> int:
        return self._offset_ms
