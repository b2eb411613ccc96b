"""Every acknowledged job exists on every node and ended once, in a way that its kind permits."""

from __future__ import annotations

from collections.abc import Iterator

from chaos.live.judge.history import ENDED, Fault, History, Row

RULE = "ended once"
DOOMED = "doomed"  # the word in a payload whose task always fails


def judge(history: History) -> Iterator[Fault]:
    acknowledged = {
        job_id: request for request in history.requests for ids in request.answers for job_id in ids
    }
    for name, rows in history.nodes.items():
        for job_id, request in acknowledged.items():
            if job_id not in rows and name not in history.replaced:
                yield Fault(RULE, f"{name} lost job {job_id} of request {request.key}", job_id)
    for name, row in history.rows():
        if complaint := _complaint(row):
            yield Fault(RULE, f"{name}: job {row['job_id']} {complaint}", row["job_id"])
    for job_id, events in history.timelines.items():
        ends = [event["event"] for event in events if event["event"] in (*ENDED, "dead_letter")]
        if len(ends) != len(set(ends)):
            yield Fault(RULE, f"job {job_id} ended more than once: {', '.join(ends)}", job_id)


def _complaint(row: Row) -> str:
    status, attempt, payload = row["status"], row["attempt"], row["payload"]
    if status not in ENDED:
        return f"has not ended: {status}, {row['reason']}"
    if status == "cancelled":
        return ""  # for another rule
    if DOOMED in str(payload).split():
        return "" if status == "failed" else f"was doomed and is {status}"
    if status == "failed":
        return f"failed for good: {row['error_type']}: {row['error_message']}"
    if row["output"] != f"by {attempt}":
        return f"ended in attempt {attempt} with the output {row['output']!r} of another"
    return ""
