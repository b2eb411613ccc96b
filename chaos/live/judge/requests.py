"""A request under an idempotency key makes its jobs once, and is always answered alike."""

from __future__ import annotations

from collections.abc import Iterator

from chaos.live.judge.history import Fault, History

RULE = "requests"


def judge(history: History) -> Iterator[Fault]:
    asked: dict[str, str] = {}  # payload -> job id, once acknowledged
    for request in history.requests:
        asked.update(dict.fromkeys(request.payloads, ""))
        if len(set(request.answers)) > 1:
            yield Fault(RULE, f"request {request.key} was answered {request.answers}")
        for ids in request.answers[:1]:
            if not request.unique_key:  # those may be given a job that exists
                asked.update(zip(request.payloads, ids, strict=False))
            if len(ids) != len(request.payloads):
                yield Fault(RULE, f"request {request.key} for {len(request.payloads)} got {ids}")
    for name, rows in history.nodes.items():
        made: dict[str, str] = {}
        for job_id, row in rows.items():
            if row["schedule_id"] is not None:
                continue
            payload = row["payload"]
            if payload not in asked:
                yield Fault(RULE, f"{name}: nobody submitted job {job_id}: {payload}", job_id)
            elif payload in made:
                text = f"{name}: jobs {made[payload]} and {job_id} are both {payload}"
                yield Fault(RULE, text, job_id)
            elif asked[payload] not in ("", job_id):
                text = f"{name}: {payload} was acknowledged as {asked[payload]} and is {job_id}"
                yield Fault(RULE, text, job_id)
            made[payload] = job_id
