"""A node's clocks in the simulation: the wall clock can be wrong, the monotonic one cannot."""

from __future__ import annotations

import asyncio

EPOCH_MS = 1_750_000_000_000  # an arbitrary morning; nothing may depend on it


class SimClock:
    """Follows virtual time; `jump` moves the wall clock of this node only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._offset_ms = 0

    def now_ms(self) -> int:
        return EPOCH_MS + round(self._loop.time() * 1000) + self._offset_ms

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
