"""One step, prepared anew for each round; the cheapest round counts.

CPU time of this thread, so other processes only disturb it through caches; the collector is off, as
nothing here makes cycles.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

ROUNDS = 5

Work = Callable[[], object]


@dataclass(frozen=True)
class Step:
    """`prepare()` gives the work to be timed, which does `count` operations.

    With `waits` the time that passed counts instead: what a disk takes is no CPU time.
    """

    name: str
    count: int
    prepare: Callable[[], Work]
    per: str = "job"
    waits: bool = False

    def microseconds(self, rounds: int = ROUNDS) -> float:
        return min(self._once() for _ in range(rounds)) / self.count * 1e6

    def _once(self) -> float:
        work = self.prepare()
        clock = time.perf_counter if self.waits else time.thread_time
        gc.collect()
        gc.disable()
        try:
            started = clock()
            work()
            return clock() - started
        finally:
            gc.enable()
