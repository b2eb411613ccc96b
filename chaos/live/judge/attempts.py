"""Attempts are numbered one by one, each is one run, and the last one ended the job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from chaos.live.judge.history import Fault, History

RULE = "attempts"


def judge(history: History) -> Iterator[Fault]:
    jobs = history.jobs
    for job_id, events in history.timelines.items():
        told = [event["attempt"] for event in events if event["event"] == "started"]
        if told != sorted(set(told)) or _has_gap(told):
            yield Fault(RULE, f"job {job_id} started attempts {told}", job_id)
    times = Counter((run.job_id, run.attempt) for run in history.runs)
    for (job_id, attempt), count in times.items():
        if count > 1:
            yield Fault(RULE, f"attempt {attempt} of job {job_id} ran {count} times", job_id)
        row = jobs.get(job_id)
        if row is None:
            yield Fault(RULE, f"a worker ran job {job_id}, which nobody knows", job_id)
        elif attempt > row["attempt"]:
            yield Fault(
                RULE, f"attempt {attempt} of job {job_id} ran, its last is {row['attempt']}", job_id
            )
    for job_id, row in jobs.items():
        if row["status"] == "completed" and not times[job_id, row["attempt"]]:
            yield Fault(
                RULE, f"no worker ran attempt {row['attempt']} that ended job {job_id}", job_id
            )


def _has_gap(told: list[int]) -> bool:
    """A timeline may have forgotten the oldest attempts, none in between."""
    return bool(told) and told != list(range(told[0], told[0] + len(told)))
