"""The clock that a node's parts are given: the machine's, unless that jumps (see `guard.py`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from cluster.clock.guard import Change, Guard, Votes
from cluster.clock.system import Clock

READ_MS_MAX = 20  # between two looks at elapsed time with one at the wall clock in between
READS_MAX = 3


@dataclass(frozen=True)
class Reading:
    """All that one look tells. `wall_ms` is the machine's own, `now_ms` what this node runs at."""

    wall_ms: int
    elapsed_ms: int
    now_ms: int

    @property
    def off_ms(self) -> int:
        """How far the wall clock is ahead of the time that this node runs at."""
        return self.wall_ms - self.now_ms


class GuardedClock:
    """`bound_ms`: a wall clock that moves further at once is not followed. `elapsed_ms` must go on
    while the machine sleeps; without it the clock's monotonic time is taken. Any thread may ask."""

    def __init__(
        self, clock: Clock, bound_ms: int, elapsed_ms: Callable[[], int] | None = None
    ) -> None:
        self._clock = clock
        self._elapsed_ms = elapsed_ms or clock.monotonic_ms
        self._lock = threading.Lock()
        self.guard = Guard(bound_ms)
        self.read()

    def now_ms(self) -> int:
        return self.read().now_ms

    def monotonic_ms(self) -> int:
        return self._clock.monotonic_ms()

    def elapsed_ms(self) -> int:
        return self._elapsed_ms()

    def read(self) -> Reading:
        with self._lock:
            wall_ms, elapsed_ms = self._look()
            return Reading(wall_ms, elapsed_ms, self.guard.read(wall_ms, elapsed_ms))

    def consult(self, votes: Votes) -> None:
        """Compare with the clocks of the other members."""
        with self._lock:
            self.guard.consult(*self._look(), votes)

    def accept(self) -> bool:
        """The operator says that the wall clock is right; False when it was not refused."""
        with self._lock:
            return self.guard.accept(*self._look())

    def changes(self) -> list[Change]:
        """What happened since this was asked last."""
        with self._lock:
            found = list(self.guard.changes)
            self.guard.changes.clear()
        return found

    def _look(self) -> tuple[int, int]:
        """Both clocks at one moment: a process that is paused between them would see a jump."""
        for _ in range(READS_MAX):
            before_ms = self._elapsed_ms()
            wall_ms = self._clock.now_ms()
            elapsed_ms = self._elapsed_ms()
            if elapsed_ms - before_ms <= READ_MS_MAX:
                break
        return wall_ms, elapsed_ms
