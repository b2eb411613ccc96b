"""Jobs of one queue and name start in their order: most urgent first, then longest due.

By the time that is in the log, so it says what the cluster decided and not what the network made of
it. A job may be passed while nobody knows whether it was already given to somebody (an answer that
is lost with its leader), which takes an election, hence the tolerance.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

from chaos.live.judge.history import Fault, History, Row

RULE = "order"
TOLERANCE_S = 1.0


class Start(NamedTuple):
    due_s: float
    started_s: float
    job_id: str


def judge(history: History) -> Iterator[Fault]:
    tolerance_s = TOLERANCE_S + history.clocks_apart_s
    for levels in _lanes(history).values():
        for priority, waiting in levels.items():
            for other, passing in levels.items():
                if priority <= other:
                    yield from _passed(waiting, passing, tolerance_s, equal=priority == other)


def _lanes(history: History) -> dict[tuple[str, str], dict[int, list[Start]]]:
    """First attempts of each queue and name, by priority, longest due first."""
    delayed = {
        job_id
        for request in history.requests
        for ids in request.answers
        for job_id in ids
        if request.delay_s
    }
    lanes: dict[tuple[str, str], dict[int, list[Start]]] = defaultdict(lambda: defaultdict(list))
    for job_id, row in history.jobs.items():
        told = history.timelines.get(job_id, ())
        first = [each for each in told if (each["event"], each["attempt"]) == ("started", 1)]
        due = _due(row, is_delayed=job_id in delayed)
        if first and due:  # a timeline may have forgotten it
            start = Start(_seconds(due), _seconds(first[0]["at"]), job_id)
            lanes[row["queue"], row["name"]][row["priority"]].append(start)
    for levels in lanes.values():
        for starts in levels.values():
            starts.sort()
    return lanes


def _due(row: Row, *, is_delayed: bool) -> str:
    """When the first attempt was due. A delay begins when a node reads the request, which can be
    long before it is in the log; a retry is due at a time of its own, so nobody knows it then."""
    if not is_delayed:
        return str(row["created_at"])
    return str(row["scheduled_at"]) if row["attempt"] == 1 else ""


def _passed(
    waiting: list[Start], passing: list[Start], tolerance_s: float, *, equal: bool
) -> Iterator[Fault]:
    """Whether one of `waiting` was due when one of `passing` started, and started long after it.
    Of `equal` urgency only who was due before has to be first."""
    dues_s = [start.due_s for start in waiting]
    latest = list(accumulate(waiting, lambda one, two: max(one, two, key=_started_s)))
    for start in passing:
        until_s = start.started_s - tolerance_s
        if equal:
            until_s = min(until_s, start.due_s)
        count = bisect_left(dues_s, until_s)
        if not count:
            continue
        late = latest[count - 1]
        waited_s = late.started_s - start.started_s
        if waited_s > tolerance_s:
            text = f"job {late.job_id} was due and started {waited_s:.3f} s after {start.job_id}"
            yield Fault(RULE, text, late.job_id)
            return  # the others would tell of the same


def _started_s(start: Start) -> float:
    return start.started_s


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
