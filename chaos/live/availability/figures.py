"""From moments to figures: the longest silence in a window, and what became of the jobs."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct, field

from chaos.live.judge.history import Run

QUANTILES = (0.5, 0.9, 0.99)


class Outage(Struct):
    """One repetition: the longest time without a submission that was accepted, and without a job
    that began, from the fault until all was well again."""

    submissions_ms: float
    starts_ms: float


class Measured(Struct):
    """One fault, all its repetitions. `load` is the machine's when it was begun and ended."""

    fault: str
    about: str
    rate: float
    outages: list[Outage]
    acknowledged: int
    lost: int
    doubled: int
    ran_again: int
    repeated: int
    at: str = ""
    commit: str = ""
    load: list[float] = field(default_factory=list)


def silence_ms(moments_s: Sequence[float], from_s: float, until_s: float) -> float:
    """The longest time in the window in which nothing happened; `moments_s` are in order."""
    first = bisect.bisect_right(moments_s, from_s)
    inside = moments_s[first : bisect.bisect_left(moments_s, until_s)]
    return max(b - a for a, b in pairwise([from_s, *inside, until_s])) * 1000


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


def outcome(ids: Sequence[str], runs: Sequence[Run], completed: int) -> tuple[int, int, int]:
    """Lost, doubled, ran again: of acknowledged jobs, what workers ran, and how many the cluster
    counts. Every request was answered in the end, so there is no job that nobody was told of."""
    ended = Counter(run.job_id for run in runs if run.outcome == "completes")
    begun = Counter((run.job_id, run.attempt) for run in runs)
    lost = len({job_id for job_id in ids if job_id not in ended}) + max(len(ids) - completed, 0)
    twice = len(ids) - len(set(ids)) + sum(count - 1 for count in begun.values())
    return lost, twice + max(completed - len(ids), 0), sum(ended.values()) - len(ended)
