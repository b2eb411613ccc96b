"""The life of a job as one table; `docs/lifecycle.md` is drawn from it.

Pending is what users see for the first three states; the state itself is the reason.
"""

from __future__ import annotations

SCHEDULED, READY, RETRYING = 0, 1, 2
RUNNING = 10
COMPLETED, FAILED, CANCELLED, SKIPPED = 20, 21, 22, 23

LIFECYCLE: dict[tuple[int, str], int] = {
    (SCHEDULED, "due"): READY,
    (RETRYING, "due"): READY,
    (READY, "assign"): RUNNING,
    (RUNNING, "complete"): COMPLETED,
    (RUNNING, "retry"): RETRYING,
    (RUNNING, "release"): READY,
    (RUNNING, "fail"): FAILED,
    (SCHEDULED, "cancel"): CANCELLED,
    (READY, "cancel"): CANCELLED,
    (RETRYING, "cancel"): CANCELLED,
    (RUNNING, "cancel"): CANCELLED,
    (SCHEDULED, "expire"): FAILED,
    (READY, "expire"): FAILED,
    (RETRYING, "expire"): FAILED,
    (FAILED, "replay"): READY,
    (FAILED, "replay_later"): SCHEDULED,
}

STATUS = {
    SCHEDULED: "pending",
    READY: "pending",
    RETRYING: "pending",
    RUNNING: "running",
    COMPLETED: "completed",
    FAILED: "failed",
    CANCELLED: "cancelled",
    SKIPPED: "skipped",
}
STATUSES = ("pending", "running", "completed", "failed", "cancelled", "skipped")
REASON = {SCHEDULED: "scheduled", READY: "ready", RETRYING: "retrying"}
NAMES = {**{state: name for state, name in STATUS.items() if state >= RUNNING}, **REASON}


def transitions(event: str) -> dict[int, int]:
    """One event's column of the table: `{state: next state}`, for a single lookup when hot."""
    return {state: after for (state, name), after in LIFECYCLE.items() if name == event}


def is_finished(state: int) -> bool:
    return state >= COMPLETED
