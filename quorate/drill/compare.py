"""Two looks at the same jobs, field by field. Works on the JSON that the API answers, so that a
field which a later release adds is compared without anybody thinking of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

Job = Mapping[str, Any]
Jobs = Mapping[str, Job]

FINISHED = frozenset({"completed", "failed", "cancelled", "skipped"})
# Where a job stands: of another's job, which goes on during a drill, these may have changed.
MOVING = frozenset(
    {"status", "reason", "attempt", "failures", "scheduled_at", "next_run", "started_at",
     "finished_at", "worker_id", "error_message", "error_type", "output", "progress"}
)  # fmt: skip
# Follows from the time of asking and from the workers that are there, not from the job.
PASSING = frozenset({"reason", "next_run", "progress"})


def by_status(jobs: Iterable[Job]) -> dict[str, int]:
    return dict(Counter(str(job["status"]) for job in jobs))


def unchanged(before: Jobs, after: Jobs) -> list[str]:
    """Of jobs that nobody may have touched: one sentence per field that differs or job missing."""
    return _each(before, after, lambda a, b: _fields(a, b, PASSING))


def moved_on(before: Jobs, after: Jobs) -> list[str]:
    """Of anybody's jobs: what had ended is as it was, what had not may only have gone on."""
    return _each(before, after, _went_on)


def brought_back(first: Jobs, second: Jobs, restored: Jobs) -> list[str]:
    """Of jobs seen before (`first`) and after (`second`) a backup was taken: in the restored
    cluster they are the same, but that what ran has used up its attempt."""
    still = {i: job for i, job in first.items() if second.get(i) == job}
    running = {i: job for i, job in still.items() if job["status"] == "running"}
    quiet = {i: job for i, job in still.items() if i not in running}
    moved = {i: job for i, job in first.items() if i not in still}
    return (
        unchanged(quiet, restored)
        + _each(running, restored, _given_up)
        + _each(moved, restored, lambda a, b: _fields(a, b, MOVING))
    )


def _each(before: Jobs, after: Jobs, judge: Any) -> list[str]:
    found: list[str] = []
    for job_id, job in before.items():
        other = after.get(job_id)
        if other is None:
            found.append(f"job {job_id} ({job['status']}) is missing")
        else:
            found += [f"job {job_id}: {text}" for text in judge(job, other)]
    return found


def _fields(a: Job, b: Job, but: frozenset[str]) -> list[str]:
    names = [name for name in dict.fromkeys([*a, *b]) if name not in but]
    return [
        f"{name} was {_short(a.get(name))}, is {_short(b.get(name))}"
        for name in names
        if a.get(name) != b.get(name)
    ]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _went_on(a: Job, b: Job) -> list[str]:
    if a["status"] in FINISHED:
        return _fields(a, b, PASSING)
    found = _fields(a, b, MOVING)
    for name in ("attempt", "failures"):
        if b.get(name, 0) < a.get(name, 0):
            found.append(f"{name} fell from {a[name]} to {b.get(name)}")
    return found


def _given_up(a: Job, b: Job) -> list[str]:
    """A job that ran on a worker of the lost cluster; perhaps it runs again already."""
    found = _fields(a, b, MOVING)
    attempt = a["attempt"] + (b["status"] in ("running", "completed"))
    if (b["attempt"], b["failures"]) != (attempt, a["failures"] + 1):
        found.append(
            f"attempt {a['attempt']} was not used up (attempt {b['attempt']}, "
            f"failures {b['failures']}, {b['status']})"
        )
    return found
