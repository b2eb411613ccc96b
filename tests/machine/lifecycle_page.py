"""Writes docs/lifecycle.md from the table.

PYTHONPATH=. python tests/machine/lifecycle_page.py
"""

from __future__ import annotations

from pathlib import Path

from cluster.machine import lifecycle
from cluster.machine.lifecycle import LIFECYCLE, NAMES, REASON, STATUS

PAGE = Path(__file__).parents[2] / "docs" / "lifecycle.md"

EVENTS = {
    "due": "its moment has come: `run_at`, or the time decided for the retry",
    "assign": "the dispatcher gave it to a worker; its attempt number grows by one",
    "complete": "the worker holding the attempt reported success",
    "retry": "the attempt failed or its worker was lost, and a later moment was decided",
    "release": "the worker handed it back or said goodbye (no failure is counted), or a failed "
    "attempt is repeated at once",
    "fail": "the attempt failed and no retry is left, none is wanted, or it would come after the "
    "deadline",
    "cancel": "somebody cancelled it; a running one is stopped, a late answer is refused",
    "expire": "nobody started it before `expires_at`, or its total deadline passed",
    "replay": "somebody brought the dead letter back",
    "replay_later": "the same, for a later moment",
}
MEANING = {
    "scheduled": "waits for its moment",
    "ready": "waits for a worker",
    "retrying": "failed and waits for its next attempt",
    "running": "a worker holds the current attempt",
    "completed": "done",
    "failed": "a dead letter, until it is replayed or purged",
    "cancelled": "ended by hand",
    "skipped": "was not to run",
}


def page() -> str:
    return "\n".join([*_head(), *_diagram(), *_states(), *_transitions(), *_rules()]) + "\n"


def _head() -> list[str]:
    return [
        "# The life of a job",
        "",
        "*Generated from `cluster/machine/lifecycle.py` by `tests/machine/lifecycle_page.py`;",
        "a test fails when the two differ.*",
        "",
    ]


def _diagram() -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> scheduled: submit for later"]
    lines.append("    [*] --> ready: submit")
    merged: dict[tuple[str, str], list[str]] = {}
    for (state, event), after in LIFECYCLE.items():
        merged.setdefault((NAMES[state], NAMES[after]), []).append(event)
    lines += [f"    {a} --> {b}: {', '.join(events)}" for (a, b), events in merged.items()]
    ends = [s for s in STATUS if lifecycle.is_finished(s) and s in LIFECYCLE.values()]
    lines += [f"    {NAMES[state]} --> [*]" for state in ends]
    return [*lines, "```", ""]


def _states() -> list[str]:
    lines = ["| state | `status` | `reason` | meaning |", "|---|---|---|---|"]
    for state, status in STATUS.items():
        name = NAMES[state]
        lines.append(f"| {name} | {status} | {REASON.get(state, '')} | {MEANING[name]} |")
    return [*lines, ""]


def _transitions() -> list[str]:
    lines = ["| event | from | to | when |", "|---|---|---|---|"]
    for event, when in EVENTS.items():
        befores: dict[int, list[str]] = {}
        for state, after in lifecycle.transitions(event).items():
            befores.setdefault(after, []).append(NAMES[state])
        for after, names in befores.items():
            lines.append(f"| {event} | {', '.join(names)} | {NAMES[after]} | {when} |")
    return [*lines, ""]


def _rules() -> list[str]:
    return [
        "What the table does not show:",
        "",
        "* The attempt number fences workers: an answer that names another attempt than the",
        "  running one is refused, whoever gives it.",
        "* Completed and cancelled jobs leave memory at once and stay readable in the history of",
        "  each node. Failed ones stay as dead letters, too.",
        "* A total deadline binds the whole first life: whatever brings the job back from a",
        "  worker after it, the job is dead. A replay starts a new life without it.",
        "* `skipped` is the state of occurrences that are not to run; no event leads there yet."
        if lifecycle.SKIPPED not in LIFECYCLE.values()
        else "* `skipped` is the state of occurrences that are not to run.",
    ]


if __name__ == "__main__":
    PAGE.write_text(page())
