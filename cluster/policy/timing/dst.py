"""From local times to instants, where the clock jumps: gaps and repeated hours.

By default as Debian's cron: a job at fixed times runs once for what a gap left out, at its end,
and once in a repeated hour; a job with a wildcard follows real time. An explicit rule holds for
both kinds. Works through stretches of constant offset, so two changes in one step are no special
case, and to the second.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from cluster.policy.timing.hits import Hit, Note, clock_text, day_text, merged
from cluster.policy.timing.parse import Expression
from cluster.policy.timing.zones import Stretch, Zone

GAPS = ("run", "skip", "shift")
REPEATS = ("first", "second", "both")


class Rule(Struct, frozen=True, gc=False):
    """`real_time`: local times are only labels, nothing is made up for and nothing left out."""

    gap: str = "run"
    repeat: str = "first"
    real_time: bool = False


class _Steps:
    """Remembers the last answer, which several stretches in a row may ask for."""

    def __init__(self, expression: Expression) -> None:
        self._expression = expression
        self._from_s, self._found_s = 0, 0

    def next_s(self, after_s: int) -> int | None:
        if self._from_s <= after_s < self._found_s:
            return self._found_s
        found_s = self._expression.next_local(after_s)
        if found_s is not None:
            self._from_s, self._found_s = after_s, found_s
        return found_s


def cron_hits(expression: Expression, zone: Zone, rule: Rule, after_ms: int) -> Iterator[Hit]:
    """The hits strictly after `after_ms`, without end unless none comes in fifty years."""
    steps = _Steps(expression)
    after_s = after_ms // 1000
    for stretch in zone.stretches(after_s + 1):
        first_s = max(after_s, stretch.start_s - 1)
        if steps.next_s(first_s + min(stretch.before_s, stretch.offset_s)) is None:
            return
        regular = _regular(steps, stretch, rule, first_s)
        if stretch.offset_s > stretch.before_s and not rule.real_time:
            yield from merged([_gap(steps, stretch, rule, first_s), regular])
        else:
            yield from regular


def _regular(steps: _Steps, stretch: Stretch, rule: Rule, first_s: int) -> Iterator[Hit]:
    """What the clock shows in this stretch, less the passes of a repeated hour that do not run."""
    offset_s = stretch.offset_s
    again_until_s = stretch.start_s + stretch.before_s  # local times below were there before
    again_from_s = stretch.end_s + stretch.following_s  # local times from here on come again
    end_s = stretch.end_s + offset_s
    local_s = steps.next_s(first_s + offset_s)
    while local_s is not None and local_s < end_s:
        second, first = local_s < again_until_s, local_s >= again_from_s
        if not (second or first):
            yield Hit((local_s - offset_s) * 1000)
        elif rule.real_time or not (rule.repeat == "first" if second else rule.repeat == "second"):
            yield Hit((local_s - offset_s) * 1000, (_repeated(local_s, second),))
        local_s = steps.next_s(local_s)


def _gap(steps: _Steps, stretch: Stretch, rule: Rule, first_s: int) -> Iterator[Hit]:
    """What becomes of the local times that the clock jumped over at the start of this stretch."""
    end_s = stretch.start_s + stretch.offset_s
    if rule.gap == "run":
        local_s = steps.next_s(stretch.start_s - 1 + stretch.before_s)
        if first_s < stretch.start_s and local_s is not None and local_s < end_s:
            yield Hit(stretch.start_s * 1000, (_missing(local_s, end_s),))
        return
    local_s = steps.next_s(first_s + stretch.before_s)
    while local_s is not None and local_s < end_s:
        at_s = local_s - stretch.before_s
        if rule.gap == "shift":
            yield Hit(at_s * 1000, (_missing(local_s, at_s + stretch.offset_s),))
        else:
            yield Hit(at_s * 1000, (), "gap", f"{_nowhere(local_s)}: skipped")
        local_s = steps.next_s(local_s)


def _repeated(local_s: int, second: bool) -> Note:
    which = "second" if second else "first"
    return Note(
        "repeated",
        f"{clock_text(local_s)} comes twice on {day_text(local_s)}, this is the {which} time",
    )


def _missing(local_s: int, runs_s: int) -> Note:
    day = "" if day_text(local_s) == day_text(runs_s) else f" on {day_text(runs_s)}"
    return Note("gap", f"{_nowhere(local_s)}, runs at {clock_text(runs_s)}{day}")


def _nowhere(local_s: int) -> str:
    return f"{clock_text(local_s)} does not exist on {day_text(local_s)}"
