"""All that is known of one job: what clients asked, what workers ran, what the nodes say."""

from __future__ import annotations

from collections.abc import Iterator

from chaos.live.judge.history import History


def tell(history: History, job_id: str) -> str:
    return "\n".join(f"    {line}" for line in _lines(history, job_id))


def _lines(history: History, job_id: str) -> Iterator[str]:
    payloads = {row["payload"] for _, row in history.rows() if row["job_id"] == job_id}
    for request in history.requests:
        named = any(job_id in ids for ids in request.answers)
        if named or payloads & set(request.payloads):
            yield f"client  {request}"
    for cancel in history.cancels:
        if cancel.job_id == job_id:
            yield f"client  {cancel.sent_s:.3f} cancelled it: {cancel.outcome}"
    for run in sorted(history.runs, key=lambda run: run.begun_s):
        if run.job_id == job_id:
            end = "never told its end" if run.ended_s is None else f"{run.ended_s:.3f}"
            told = f"attempt {run.attempt} {run.begun_s:.3f} to {end} {run.outcome}"
            yield f"worker  {run.worker} ran {told}"
    for event in history.timelines.get(job_id, ()):
        told = f"{event['at']} {event['event']} attempt {event['attempt']}"
        yield f"cluster {told} {event['worker_id'] or ''} {event['detail'] or ''}".rstrip()
    for name, rows in history.nodes.items():
        row = rows.get(job_id)
        if row is None:
            yield f"{name}      does not have it"
        else:
            yield f"{name}      {row['status']} in attempt {row['attempt']}: {row['output']!r}"
