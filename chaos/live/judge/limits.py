"""No worker runs more jobs at a time than it has slots for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf

from chaos.live.judge.history import Fault, History, Run

RULE = "limits"


def judge(history: History) -> Iterator[Fault]:
    if not history.slots:
        return
    by_worker: dict[str, list[Run]] = defaultdict(list)
    for run in history.runs:
        by_worker[run.worker].append(run)
    for worker, runs in by_worker.items():
        yield from _judge_one(worker, runs, history.slots)


def _judge_one(worker: str, runs: list[Run], slots: int) -> Iterator[Fault]:
    """The first run for which there was no slot; those behind it would only repeat it."""
    ends_s: list[float] = []  # of what runs
    for run in sorted(runs, key=lambda each: each.begun_s):
        while ends_s and ends_s[0] <= run.begun_s:
            heappop(ends_s)
        heappush(ends_s, inf if run.ended_s is None else run.ended_s)
        if len(ends_s) > slots:
            text = f"{worker} has {slots} slots and ran {len(ends_s)} jobs, job {run.job_id} last"
            yield Fault(RULE, text, run.job_id)
            return
