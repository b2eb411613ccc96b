"""Notices an event loop that stands still: how late it gets to its timers, and where it is stuck.

The loop's side costs no timer of its own: it looks at one that fires anyway. The other side is a
thread that sleeps until the loop would have been silent for too long, so it wakes about twice a
second. Only a thread can see where a loop is that does not turn.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable

from .stacks import stack_line

log = logging.getLogger("quorate.vitals")

CHORES_S = 1.0
OVERSLEPT_SHARE = 0.5  # of `warn_ms`: by then the thread itself was kept from running


class LoopWatch:
    """`observe_ms` gets every lateness. `warn_ms` 0: nothing is watched for; `exit_s` 0: a loop
    that is stuck for good stays; else `on_stuck(why)` is called, once, from the thread.

    `chores` are small things that want to be done about once a second and not on the loop."""

    def __init__(
        self,
        observe_ms: Callable[[int], None],
        warn_ms: int,
        exit_s: float,
        on_stuck: Callable[[str], None] | None,
        chores: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stalls_total = 0
        self.longest_s = 0.0
        self._observe_ms = observe_ms
        self._warn_s = warn_ms / 1000
        self._exit_s = exit_s if on_stuck is not None else 0.0
        self._on_stuck = on_stuck
        self._chores = chores
        self._chores_at = 0.0
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._loop_thread = 0
        self._cpu_clock: int | None = None
        self._started_s = 0.0
        # Written by the loop, read by the thread.
        self._beat_s = 0.0
        self._beat_cpu_s = 0.0
        # Written by the thread, read by the loop.
        self._told_s = 0.0  # the beat after which a stall was told
        # The thread's own.
        self._excused_s = 0.0  # before this the silence is not the loop's fault
        self._wakes_s = 0.0

    @property
    def is_watching(self) -> bool:
        return self._thread is not None

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """On the loop, once its timers fire. What was slow before is not looked at."""
        self._loop_thread = threading.get_ident()
        if hasattr(time, "pthread_getcpuclockid"):
            self._cpu_clock = time.pthread_getcpuclockid(self._loop_thread)
        self._beat_s, self._beat_cpu_s = self._clock(), time.thread_time()
        self._started_s = self._beat_s
        self._thread = threading.Thread(target=self._run, name="loopwatch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Before the timers end."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    # -- on the loop -----------------------------------------------------------------------------

    def on_timer(self, due_s: float) -> None:
        """A timer fired now that was due at `due_s`."""
        if self._thread is None:
            return
        now_s = self._clock()
        # What was due before the start was late for what went on then.
        late_s = max(now_s - max(due_s, self._started_s), 0.0)
        before_s, before_cpu_s = self._beat_s, self._beat_cpu_s
        self._beat_s, self._beat_cpu_s = now_s, time.thread_time()
        self._observe_ms(int(late_s * 1000))
        self.longest_s = max(self.longest_s, late_s)
        if self._warn_s and late_s >= self._warn_s and self._told_s != before_s:
            self.stalls_total += 1
            log.warning(
                "the event loop stood still for %.2f s (%.2f s of it on the CPU) and nobody saw "
                "where: one long call outside of Python, or the whole process was held up",
                late_s,
                self._beat_cpu_s - before_cpu_s,
            )

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = self._warn_s or CHORES_S
        self._wakes_s = self._clock() + pause_s
        while not self._ended.wait(pause_s):
            pause_s = self.look(self._clock())

    def look(self, now_s: float) -> float:
        """One look; how long to sleep until the next."""
        if now_s - self._chores_at >= CHORES_S:
            self._chores_at = now_s
            self._chores()
        pause_s = self._watch(now_s) if self._warn_s else CHORES_S
        self._wakes_s = self._clock() + pause_s
        return pause_s

    def _watch(self, now_s: float) -> float:
        beat_s = self._beat_s
        is_told = self._told_s == beat_s
        overslept_s = now_s - self._wakes_s
        if overslept_s > self._warn_s * OVERSLEPT_SHARE:
            # Both were kept from running: the loop gets its time again. Once it is known to be
            # stuck, only what this thread has missed is not counted.
            self._excused_s = self._since(beat_s) + overslept_s if is_told else now_s
        stood_s = now_s - self._since(beat_s)
        if stood_s < self._warn_s:
            return self._warn_s - stood_s
        if not is_told:
            self._told_s = beat_s
            self.stalls_total += 1
            log.warning("%s", self._sentence(now_s - beat_s))
        if self._exit_s and stood_s >= self._exit_s:
            self._give_up(now_s - beat_s)
        return min(self._warn_s, CHORES_S)

    def _since(self, beat_s: float) -> float:
        return max(beat_s, self._excused_s)

    def _sentence(self, stood_s: float) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return (
            f"the event loop has stood still for {stood_s:.2f} s{self._on_cpu()}: "
            f"{stack_line(frame)}"
        )

    def _on_cpu(self) -> str:
        if self._cpu_clock is None:
            return ""
        cpu_s = time.clock_gettime(self._cpu_clock) - self._beat_cpu_s
        return f" ({cpu_s:.2f} s of it on the CPU)"

    def _give_up(self, stood_s: float) -> None:
        self._exit_s = 0.0
        assert self._on_stuck is not None
        self._on_stuck(self._sentence(stood_s))
