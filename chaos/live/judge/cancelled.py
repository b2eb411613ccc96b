"""What was cancelled stays cancelled, and nothing is that nobody wanted cancelled."""

from __future__ import annotations

from collections.abc import Iterator

from chaos.live.judge.history import Fault, History

RULE = "cancelled"


def judge(history: History) -> Iterator[Fault]:
    wanted = {cancel.job_id for cancel in history.cancels}
    for name, row in history.rows():
        if row["status"] == "cancelled" and row["job_id"] not in wanted:
            text = f"{name}: nobody cancelled job {row['job_id']}"
            yield Fault(RULE, text, row["job_id"])
    for cancel in history.cancels:
        if cancel.outcome != "done":
            continue
        for name, rows in history.nodes.items():
            row = rows.get(cancel.job_id, {"status": "lost"})
            if row["status"] != "cancelled":
                text = f"{name}: job {cancel.job_id} was cancelled and is {row['status']}"
                yield Fault(RULE, text, cancel.job_id)
