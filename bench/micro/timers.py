"""The timing wheel alone."""

from __future__ import annotations

from pathlib import Path
from random import Random

from bench.micro.replay import NOW_MS
from bench.micro.timing import Step, Work
from cluster.timerwheel import TimerWheel

SPAN_MS = 10_000
STEP_MS = 10


def steps(jobs: int, folder: Path) -> list[Step]:
    rng = Random(1)
    dues = [NOW_MS + rng.randrange(SPAN_MS) for _ in range(jobs)]
    return [
        Step("insert, within ten seconds", jobs, lambda: _inserting(dues), per="timer"),
        Step("cancel", jobs, lambda: _cancelling(dues), per="timer"),
        Step("advance ten seconds, in steps of 10 ms", jobs, lambda: _advancing(dues), per="timer"),
    ]


def _filled(dues: list[int]) -> TimerWheel:
    wheel = TimerWheel(NOW_MS)
    for due_ms in dues:
        wheel.insert(due_ms, None)
    return wheel


def _inserting(dues: list[int]) -> Work:
    wheel = TimerWheel(NOW_MS)

    def insert() -> None:
        for due_ms in dues:
            wheel.insert(due_ms, None)

    return insert


def _cancelling(dues: list[int]) -> Work:
    wheel = TimerWheel(NOW_MS)
    timers = [wheel.insert(due_ms, None) for due_ms in dues]

    def cancel() -> None:
        for timer in timers:
            wheel.cancel(timer)

    return cancel


def _advancing(dues: list[int]) -> Work:
    wheel = _filled(dues)

    def advance() -> None:
        for now_ms in range(NOW_MS, NOW_MS + SPAN_MS + STEP_MS, STEP_MS):
            wheel.advance(now_ms)

    return advance
