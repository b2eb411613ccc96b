"""Of the jobs with one unique key, one at a time is alive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from chaos.live.judge.history import Fault, History, Row

RULE = "unique"


def judge(history: History) -> Iterator[Fault]:
    by_key: dict[str, list[Row]] = defaultdict(list)
    jobs = history.jobs
    for row in jobs.values():
        if row["unique_key"]:
            by_key[row["unique_key"]].append(row)
    for key, rows in by_key.items():
        rows.sort(key=lambda row: int(row["job_id"]))
        for older, newer in pairwise(rows):
            # Both times are the cluster's own, in one format: they compare as text.
            if older["finished_at"] is None or newer["created_at"] < older["finished_at"]:
                ids = f"{older['job_id']} and {newer['job_id']}"
                text = f"jobs {ids} were alive together under the key {key}"
                yield Fault(RULE, text, newer["job_id"])
    for request in history.requests:
        for job_id in (job_id for ids in request.answers for job_id in ids):
            if request.unique_key and job_id in jobs:
                found = jobs[job_id]["unique_key"]
                if found != request.unique_key:
                    text = f"{request.key} asked for {request.unique_key} and got job {job_id}"
                    yield Fault(RULE, f"{text} of {found}", job_id)
