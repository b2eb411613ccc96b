"""`apply` of decoded batches of a thousand, by command: what every node does for every entry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.micro import replay
from bench.micro.replay import NOW_MS, SPEC, book, entry, state_after
from bench.micro.timing import Step, Work
from cluster.machine import snapshot
from cluster.machine.commands import Batch, CancelJobs, FireSchedule, PutSchedule
from cluster.machine.state import State

HOUR_MS = 3_600_000
SCHEDULES = 100


def steps(jobs: int, folder: Path) -> list[Step]:
    submitted, assigned = replay.submissions(jobs), replay.assignments(jobs)
    completed = replay.completions(jobs)
    delayed = replay.submissions(jobs, NOW_MS + HOUR_MS)
    retried = replay.failures(jobs, NOW_MS + HOUR_MS)
    buried = replay.failures(jobs, 0)
    cancelled = [entry(CancelJobs(batch)) for batch in replay.ids(jobs)]
    later = [entry(now_ms=NOW_MS + HOUR_MS)]
    return [
        Step("submit", jobs, _booking([], submitted)),
        Step("submit, delayed", jobs, _booking([], delayed)),
        Step("assign", jobs, _booking(submitted, assigned)),
        Step("complete", jobs, _booking(submitted + assigned, completed)),
        Step("fail, retried", jobs, _booking(submitted + assigned, retried)),
        Step("fail, dead", jobs, _booking(submitted + assigned, buried)),
        Step("cancel, pending", jobs, _booking(submitted, cancelled)),
        Step("become due, all in the same millisecond", jobs, _booking(delayed, later)),
        Step("launch by a schedule", jobs // 10, _launching(jobs // 10), per="launch"),
        Step("snapshot, written", jobs, lambda: _dumping(state_after(submitted))),
        Step("snapshot, loaded", jobs, lambda: _loading(state_after(submitted))),
    ]


def _booking(before: list[Batch], timed: list[Batch]) -> Callable[[], Work]:
    def prepare() -> Work:
        state = state_after(before)
        return lambda: book(state, timed)

    return prepare


def _launching(count: int) -> Callable[[], Work]:
    """Intervals, each launched again and again, in entries of a hundred."""
    every_ms = 1_000
    made = [
        entry(PutSchedule(f"s{n}", SPEC, replay.PAYLOAD, "", every_ms, NOW_MS + every_ms))
        for n in range(SCHEDULES)
    ]
    fired = []
    for turn in range(1, count // SCHEDULES + 1):
        at_ms = NOW_MS + turn * every_ms
        launches = [FireSchedule(f"s{n}", at_ms, at_ms + every_ms) for n in range(SCHEDULES)]
        fired.append(entry(*launches, now_ms=at_ms))
    return _booking(made, fired)


def _dumping(state: State) -> Work:
    return lambda: sum(map(len, snapshot.dump(state)))


def _loading(state: State) -> Work:
    chunks = list(snapshot.dump(state))
    return lambda: snapshot.load(chunks)
