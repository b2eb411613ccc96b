"""Two executions of one job at a time only if the older one was fenced: its result is not used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from chaos.live.judge.history import Fault, History, Run

RULE = "fenced"


def judge(history: History) -> Iterator[Fault]:
    by_job: dict[str, list[Run]] = defaultdict(list)
    for run in history.runs:
        by_job[run.job_id].append(run)
    jobs = history.jobs
    for job_id, runs in by_job.items():
        row = jobs.get(job_id)
        for one, other in combinations(sorted(runs, key=lambda run: run.attempt), 2):
            if one.attempt == other.attempt or not _overlap(one, other):
                continue
            if row is not None and row["status"] == "completed" and row["attempt"] == one.attempt:
                yield Fault(RULE, f"{_tell(one, other)}; attempt {one.attempt} counted", job_id)
            elif not _was_given_up(history, one):
                text = f"{_tell(one, other)}; attempt {one.attempt} was never given up"
                yield Fault(RULE, text, job_id)


def _overlap(one: Run, other: Run) -> bool:
    if one.ended_s is None or other.ended_s is None:
        return False  # the worker of one died, nobody knows when
    return one.begun_s < other.ended_s and other.begun_s < one.ended_s


def _was_given_up(history: History, run: Run) -> bool:
    """Whether the cluster says that this attempt ended in another way than with its result."""
    events = history.timelines.get(run.job_id, ())
    ends = [
        event["event"]
        for event in events
        if event["attempt"] == run.attempt and event["event"] not in ("started", "running")
    ]
    oldest = min((event["attempt"] for event in events if event["attempt"]), default=0)
    return "completed" not in ends and (bool(ends) or run.attempt < oldest)


def _tell(one: Run, other: Run) -> str:
    return f"attempts {one.attempt} and {other.attempt} of job {one.job_id} ran at the same time"
