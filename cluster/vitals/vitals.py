"""All that a node observes of itself, in one place: with a life, and with figures."""

from __future__ import annotations

import logging
from collections.abc import Callable

from . import descriptors, memory
from .level import Level
from .loopwatch import LoopWatch
from .recent import RecentLines

LOGGERS = "quorate"
ENOUGH_LEFT_SHARE = 0.8
LAST_SHARE = 0.95


class Vitals:
    """Observes nothing until it is started."""

    def __init__(
        self,
        observe_lag_ms: Callable[[int], None] = lambda late_ms: None,
        stall_warn_ms: int = 0,
        stall_exit_s: float = 0.0,
        on_stuck: Callable[[str], None] | None = None,
        memory_limit_mb: int = 0,
    ) -> None:
        self.recent = RecentLines()
        self.queues: Callable[[], dict[str, int]] = dict  # what waits where, by name
        self._jobs_when_out: int | None = None
        self._bound = memory.bound_of(memory_limit_mb)
        self.memory = Level(
            "MiB of memory", 1 << 20, self._bound.limit, "add memory or take in fewer jobs"
        )
        self.files = Level(
            "file descriptors", 1, descriptors.limit(), "raise the limit (ulimit -n)"
        )
        self.loop = LoopWatch(observe_lag_ms, stall_warn_ms, stall_exit_s, on_stuck, self.look)

    def start(self) -> None:
        logging.getLogger(LOGGERS).addHandler(self.recent)

    def watch(self) -> None:
        """Once the loop's timers fire."""
        self.loop.start()

    def stop(self) -> None:
        self.loop.stop()
        logging.getLogger(LOGGERS).removeHandler(self.recent)

    def opened(self, number: int) -> bool:
        """A connection got this descriptor; False when there are too few left for it. All below it
        are taken, for the lowest free one is given: so nobody has to count."""
        files = self.files
        if number + 1 > files.used or not files.is_warned:
            files.note(number + 1)
        return not files.is_out

    def look(self) -> None:
        """What nobody tells has to be looked at, once a second, from any thread."""
        self.memory.note(memory.used_bytes(self._bound))
        if self.files.is_warned:
            self.files.note(descriptors.count())

    def refusal(self, live_jobs: int) -> str | None:
        """Why no new work is taken, if so. Memory that jobs have left stays with the process, so
        it is not for lack of memory that it is refused once a good part of them has gone."""
        if not self.memory.is_out:
            self._jobs_when_out = None
            return None
        if self._jobs_when_out is None:
            self._jobs_when_out = live_jobs
        has_room = live_jobs < self._jobs_when_out * ENOUGH_LEFT_SHARE
        if has_room and self.memory.share < LAST_SHARE:
            return None
        return self.memory.sentence()

    def warnings(self) -> list[str]:
        """What an operator should know, one sentence each."""
        return [level.sentence() for level in (self.memory, self.files) if level.is_warned]

    def gauges(self) -> dict[str, float]:
        """For `/metrics`. Descriptors and resident memory are what every process tells there."""
        return {
            "quorate_loop_stalls": self.loop.stalls_total,
            "quorate_loop_longest_stall_seconds": self.loop.longest_s,
            "quorate_memory_used_bytes": memory.used_bytes(self._bound),
            "quorate_memory_limit_bytes": self._bound.limit,
        }

    def facts(self) -> dict[str, object]:
        """For a page that only people read."""
        return {
            "memory_used_bytes": memory.used_bytes(self._bound),
            "memory_limit_bytes": self._bound.limit,
            "memory_limit_from": self._bound.source,
            "resident_bytes": memory.rss_bytes(),
            "open_files": descriptors.count(),
            "open_files_limit": descriptors.limit(),
            "loop_stalls": self.loop.stalls_total,
            "loop_longest_stall_seconds": round(self.loop.longest_s, 3),
        }
