"""What a drill is judged by: each criterion says what was wanted, what was found, and the verdict.

Pure functions of numbers and of what `compare` found; a test reads like a bad day.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

SHOWN_MAX = 3  # differences that are quoted; the count says how many there are


class Criterion(msgspec.Struct, frozen=True):
    """One line of the verdict."""

    name: str
    wanted: str
    found: str
    passed: bool


def same_counts(name: str, before: Mapping[str, int], after: Mapping[str, int]) -> Criterion:
    """As many jobs of every status as before."""
    return Criterion(name, counts_text(before), counts_text(after), _full(before) == _full(after))


def counts_within(
    name: str, before: Mapping[str, int], after: Mapping[str, int], moved: int
) -> Criterion:
    """As many jobs of every status as before, but for those of others that moved meanwhile."""
    statuses = sorted({*before, *after})
    off = sum(abs(after.get(status, 0) - before.get(status, 0)) for status in statuses)
    wanted = counts_text(before)
    if moved:
        wanted += f" (others moved {moved} meanwhile)"
    return Criterion(name, wanted, counts_text(after), off <= 2 * moved)


def counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {status}" for status, n in sorted(counts.items()) if n) or "none"


def _full(counts: Mapping[str, int]) -> dict[str, int]:
    return {status: n for status, n in counts.items() if n}


def no_differences(name: str, compared: int, differences: Sequence[str]) -> Criterion:
    """Every job that was compared is as it was."""
    found = f"{len(differences)} of {compared} differ" if differences else f"{compared} equal"
    if differences:
        found += ": " + "; ".join(differences[:SHOWN_MAX])
    return Criterion(name, f"{compared} jobs equal, field by field", found, not differences)


def succeeded(name: str, submitted: int, statuses: Mapping[str, int], share: float) -> Criterion:
    """More than `share` of the test jobs completed."""
    done = statuses.get("completed", 0)
    rate = done / submitted if submitted else 0.0
    found = f"{done} of {submitted} ({rate:.2%}): {counts_text(statuses)}"
    return Criterion(name, f"more than {share:.0%} completed", found, rate > share)


def within(
    name: str, found: float | None, goal: float, why_none: str = "not in that time"
) -> Criterion:
    """A time in seconds that must stay below its goal."""
    text = why_none if found is None else seconds_text(found)
    return Criterion(
        name, f"less than {seconds_text(goal)}", text, found is not None and found < goal
    )


def seconds_text(seconds: float) -> str:
    if seconds >= 120:
        return f"{seconds / 60:.3g} min"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def nothing_lost(name: str, acknowledged: Collection[str], known: Collection[str]) -> Criterion:
    """Every job that was acknowledged is there."""
    there = set(known)
    missing = [job_id for job_id in acknowledged if job_id not in there]
    found = f"{len(missing)} of {len(acknowledged)} missing"
    if missing:
        found += ": " + ", ".join(missing[:SHOWN_MAX])
    return Criterion(name, f"all {len(acknowledged)} acknowledged jobs", found, not missing)


def no_holes(name: str, acknowledged: Sequence[str], known: Collection[str]) -> Criterion:
    """What is missing came after all that is there: nothing was lost out of the middle."""
    there = set(known)
    first_lost = next((i for i, job_id in enumerate(acknowledged) if job_id not in there), None)
    late = [] if first_lost is None else [j for j in acknowledged[first_lost:] if j in there]
    found = "none" if not late else f"{len(late)} later jobs are there, e.g. {late[0]}"
    return Criterion(name, "no acknowledged job missing before one that is there", found, not late)


def ended_once(name: str, stories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Criterion:
    """Every job ended exactly once, and its attempts are counted without a gap.

    `stories`: the timelines by job."""
    faults = [fault for job_id, events in stories.items() for fault in _faults(job_id, events)]
    found = "; ".join(faults[:SHOWN_MAX]) if faults else f"{len(stories)} did"
    return Criterion(name, f"{len(stories)} jobs end once, attempts 1, 2, ...", found, not faults)


def _faults(job_id: str, events: Sequence[Mapping[str, Any]]) -> list[str]:
    ends = [e["event"] for e in events if e["event"] in ENDS]
    started = [e["attempt"] for e in events if e["event"] == "started"]
    faults = []
    if len(ends) != 1:
        faults.append(f"job {job_id} ended {len(ends)} times {ends}")
    if started != list(range(1, len(started) + 1)):
        faults.append(f"job {job_id} had attempts {started}")
    return faults


ENDS = frozenset({"completed", "cancelled", "skipped", "dead_letter"})


def holds(name: str, wanted: object, found: object) -> Criterion:
    """Two things that must be the same."""
    return Criterion(name, str(wanted), str(found), wanted == found)
