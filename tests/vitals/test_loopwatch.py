"""Standing still: what the thread sees, whom it excuses, and when it gives up."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from cluster.vitals.loopwatch import CHORES_S, LoopWatch

WARN_MS = 500
WARN_S = WARN_MS / 1000


class Watched:
    """A watch whose thread is the test, on a clock that the test moves."""

    def __init__(self, exit_s: float = 0.0) -> None:
        self.now_s = 100.0
        self.late_ms: list[int] = []
        self.stuck: list[str] = []
        self.chores = 0
        self.watch = LoopWatch(
            self.late_ms.append, WARN_MS, exit_s, self.stuck.append, self._chore, self._clock
        )
        self.watch._run = lambda: None  # type: ignore[method-assign]
        self.watch.start()
        self._pause_s = WARN_S
        self.watch._wakes_s = self.now_s + WARN_S

    def _clock(self) -> float:
        return self.now_s

    def _chore(self) -> None:
        self.chores += 1

    def turn(self, late_s: float = 0.0) -> None:
        """The loop gets to a timer."""
        self.watch.on_timer(self.now_s - late_s)

    def wake(self, late_s: float = 0.0) -> None:
        """The thread wakes when it wanted to, or later."""
        self.now_s += self._pause_s + late_s
        self._pause_s = self.watch.look(self.now_s)


def test_what_was_slow_before_the_watch_began_is_no_stall() -> None:
    watched = Watched()
    watched.now_s += 0.01
    watched.turn(late_s=3.0)
    assert watched.late_ms == [10]
    assert watched.watch.longest_s == pytest.approx(0.01)


def test_a_loop_that_turns_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    for _ in range(20):
        watched.now_s += 0.05
        watched.turn(late_s=0.002)
    watched.wake()
    assert caplog.records == []
    assert set(watched.late_ms) <= {1, 2} and len(watched.late_ms) == 20
    assert watched.watch.stalls_total == 0


def test_the_thread_sleeps_until_the_loop_would_be_late() -> None:
    watched = Watched()
    watched.now_s += 0.4
    watched.turn()
    assert watched.watch.look(watched.now_s) == pytest.approx(WARN_S)


def test_a_stall_is_one_line_with_the_stack_and_one_count(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    for _ in range(5):
        watched.wake()
    watched.turn(late_s=watched.now_s - 100.0)
    assert watched.watch.stalls_total == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("the event loop has stood still for 0.50 s (")
    assert "s of it on the CPU): " in line
    assert "cluster/vitals/loopwatch.py:" in line and " < " in line
    assert "\n" not in line
    watched.wake()
    watched.wake()  # the next stall is another one
    assert watched.watch.stalls_total == 2


def test_who_was_paused_as_a_whole_is_not_told_to_be_stuck(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = Watched(exit_s=5.0)
    watched.wake(late_s=60.0)
    assert (caplog.records, watched.stuck) == ([], [])
    watched.turn(late_s=60.0)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "stood still for 60.00 s" in line and "nobody saw where" in line
    assert watched.watch.stalls_total == 1
    assert watched.watch.longest_s == 60.0


def test_who_is_stuck_after_a_pause_is_found_a_moment_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = Watched()
    watched.wake(late_s=60.0)
    watched.wake()
    assert watched.watch.stalls_total == 1
    assert "has stood still for 61." in caplog.records[0].getMessage()


def test_a_loop_that_is_stuck_for_good_is_given_up_once() -> None:
    watched = Watched(exit_s=3.0)
    for _ in range(5):
        watched.wake()
    assert watched.stuck == []
    for _ in range(5):
        watched.wake()
    (why,) = watched.stuck
    assert "has stood still for 3.00 s" in why and "loopwatch.py" in why


def test_time_that_the_machine_took_from_all_does_not_count_towards_giving_up() -> None:
    watched = Watched(exit_s=3.0)
    watched.wake()
    for _ in range(4):
        watched.wake(late_s=10.0)
    assert watched.now_s > 140.0
    assert watched.stuck == []


def test_without_anybody_to_tell_it_only_logs() -> None:
    watched = Watched()
    for _ in range(100):
        watched.wake()
    assert watched.watch.stalls_total == 1


def test_small_things_are_done_once_a_second() -> None:
    watched = Watched()
    for _ in range(20):
        watched.turn()
        watched.wake()
    assert 20 * WARN_S / CHORES_S - 1 <= watched.chores <= 20 * WARN_S / CHORES_S + 1


async def test_the_thread_sees_where_a_real_loop_stands(caplog: pytest.LogCaptureFixture) -> None:
    seen = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.set()

    logger = logging.getLogger("quorate.vitals")
    listener = Listener()
    logger.addHandler(listener)
    watch = LoopWatch(lambda late_ms: None, 20, 0.0, None)
    watch.start()
    try:
        await asyncio.sleep(0)
        stand_still_until(seen)
    finally:
        watch.stop()
        logger.removeHandler(listener)
    assert "in stand_still_until < " in caplog.text
    assert watch.stalls_total == 1


def stand_still_until(seen: threading.Event) -> None:
    assert seen.wait(10)


async def test_nothing_is_watched_for_when_that_is_off(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()
    watch = LoopWatch(lambda late_ms: None, 0, 1.0, lambda why: None, done.set)
    watch.start()
    try:
        stand_still_until(done)
    finally:
        watch.stop()
    assert watch.stalls_total == 0
    assert caplog.records == []
