"""What a clock is, the machine's own, and one for tests."""

import time
from typing import Protocol


class Clock(Protocol):
    """What the leader's actors are given."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 in UTC: may jump when the machine's clock is corrected."""

    def monotonic_ms(self) -> int:
        """Milliseconds since some start: never jumps, means nothing on another machine."""


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed_ms() -> int:
    """Milliseconds since the machine started, those of a suspension included where the platform
    tells: by a clock that stops meanwhile, waking up would look like a jump of the wall clock."""
    return time.clock_gettime_ns(_ELAPSED) // 1_000_000


class ManualClock:
    """A clock that stands still until it is told to move: tests and simulations."""

    __slots__ = ("_monotonic_ms", "_now_ms")

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms
        self._monotonic_ms = 0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_ms(self) -> int:
        return self._monotonic_ms

    def advance(self, delta_ms: int) -> None:
        """Time passes. Raises ValueError when it would go back: see `set_now`."""
        if delta_ms < 0:
            raise ValueError(
                f"time cannot pass by {delta_ms} ms; set_now() corrects the wall clock"
            )
        self._now_ms += delta_ms
        self._monotonic_ms += delta_ms

    def set_now(self, now_ms: int) -> None:
        """The wall clock is corrected, in either direction; monotonic time does not notice."""
        self._now_ms = now_ms
