"""At the end all nodes stand at one position with one state, and tell every job alike."""

from __future__ import annotations

from collections.abc import Iterator

from chaos.live.judge.history import Fault, History

RULE = "replicas"
COMPARED = ("status", "attempt", "output", "finished_at", "worker_id", "error_type", "payload")


def judge(history: History) -> Iterator[Fault]:
    states = set(history.digests.values())
    if len(states) > len({index for index, _ in states}):  # a worker may still register in between
        yield Fault(RULE, f"digests differ: {history.digests}")
    names = list(history.nodes)
    for name in names[1:]:
        first, rows = history.nodes[names[0]], history.nodes[name]
        for job_id in sorted(first.keys() | rows.keys(), key=int):
            if job_id not in first or job_id not in rows:
                lacks = names[0] if job_id in rows else name
                if lacks not in history.replaced:
                    yield Fault(RULE, f"{lacks} does not have job {job_id}", job_id)
                continue
            one, other = first[job_id], rows[job_id]
            different = [field for field in COMPARED if one[field] != other[field]]
            if different:
                told = {field: (one[field], other[field]) for field in different}
                text = f"{names[0]} and {name} tell job {job_id} differently: {told}"
                yield Fault(RULE, text, job_id)
