"""Nothing starts before its time, whatever becomes of the nodes' clocks, but for jumps so small
that a node is to believe them.

Measured by the clock that clients and workers share and that never jumps.
"""

from __future__ import annotations

from collections.abc import Iterator

from chaos.live.judge.history import Fault, History

RULE = "not early"
TOLERANCE_S = 0.05  # a delay is kept in whole milliseconds, by clocks that are steered


def judge(history: History) -> Iterator[Fault]:
    due_s = {
        job_id: request.sent_s + request.delay_s
        for request in history.requests
        for ids in request.answers
        for job_id in ids
        if request.delay_s
    }
    for run in history.runs:
        early_s = due_s.get(run.job_id, 0.0) - run.begun_s
        if early_s > TOLERANCE_S + history.clocks_apart_s:
            yield Fault(RULE, f"job {run.job_id} began {early_s:.3f} s early", run.job_id)
