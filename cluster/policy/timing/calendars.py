"""Holidays: occurrences on them are dropped, or moved to the working day before or after.

A moved occurrence keeps its local time of day; Saturdays and Sundays are no working days, but what
is planned on one stays there. Works in groups of days: a working day and the days up to the next
one, so groups follow each other without a gap and any of them can be the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from msgspec import Struct

from cluster.plan import Plan
from cluster.policy.timing.days import DAY_S, SATURDAY, weekday
from cluster.policy.timing.hits import Hit, Note, clock_text, day_text, merged
from cluster.policy.timing.triggers import Hits
from cluster.policy.timing.zones import END_S, Zone

Calendars = Mapping[str, frozenset[int]]  # name -> days since 1970-01-01, local dates

ON_HOLIDAY = ("run", "skip", "previous", "next")
DAYS_MOVED_MAX = 366


class Group(Struct, frozen=True):
    """The days [first, last], of which `target` is the only working day; None: there is none.

    Holidays among them run on the target; what is planned on a free weekend stays there."""

    first: int
    last: int
    target: int | None


def named_days(plan: Plan, calendars: Calendars) -> frozenset[int]:
    """The holidays of all calendars of a plan; `check` has made sure that they are there."""
    if not plan.calendars:
        return frozenset()
    return _union(tuple(calendars.get(name, frozenset()) for name in plan.calendars))


@lru_cache(maxsize=256)
def _union(calendars: tuple[frozenset[int], ...]) -> frozenset[int]:
    """Remembered, so that the same set is handed out and its hash is computed once."""
    return frozenset().union(*calendars)


def observed(plan: Plan, moment: Zone, holidays: frozenset[int], hits: Hits) -> Hits:
    """The hits as the plan's holidays leave them."""
    if plan.on_holiday == "run" or not holidays:
        return hits
    if plan.on_holiday == "skip":
        return lambda after_ms: _skipping(moment, holidays, hits(after_ms))
    return lambda after_ms: _moving(plan.on_holiday, moment, holidays, hits, after_ms)


def group_of(day: int, holidays: frozenset[int], on_holiday: str) -> Group:
    """The group that `day` belongs to."""
    step = 1 if on_holiday == "next" else -1
    target = _working_day(day, holidays, step)
    if target is None:
        return Group(day, day, None)
    before = _working_day(target - step, holidays, -step)
    far = target - step * DAYS_MOVED_MAX if before is None else before + step
    return Group(min(far, target), max(far, target), target)


def _working_day(day: int, holidays: frozenset[int], step: int) -> int | None:
    """The first day from `day` on, in steps, that is no holiday and in no weekend."""
    for moved in range(DAYS_MOVED_MAX + 1):
        at = day + step * moved
        if at not in holidays and weekday(at) < SATURDAY:
            return at
    return None


def _skipping(moment: Zone, holidays: frozenset[int], hits: Iterator[Hit]) -> Iterator[Hit]:
    for hit in hits:
        local_s = moment.local_s(hit.at_ms // 1000)
        if hit.reason or local_s // DAY_S not in holidays:
            yield hit
        else:
            yield _on_holiday(hit, local_s, "skipped")


def _moving(
    on_holiday: str, moment: Zone, holidays: frozenset[int], hits: Hits, after_ms: int
) -> Iterator[Hit]:
    day = moment.local_s(after_ms // 1000) // DAY_S
    from_ms = _start_ms(moment, group_of(day, holidays, on_holiday).first) - 1
    while True:
        hit = next(hits(from_ms), None)
        if hit is None:
            return
        day = moment.local_s(hit.at_ms // 1000) // DAY_S
        group = group_of(day, holidays, on_holiday)
        first, last = max(group.first, 0), group.last
        if last * DAY_S >= END_S:
            return
        streams = [
            _moved(moment, hits, source, group.target if source in holidays else source, after_ms)
            for source in range(first, last + 1)
        ]
        for moved in merged(streams):
            if moved.at_ms > after_ms:
                yield moved
        from_ms = max(from_ms + 1, _start_ms(moment, last + 1) - 1)


def _moved(
    moment: Zone, hits: Hits, source: int, target: int | None, after_ms: int
) -> Iterator[Hit]:
    """The hits of one day, on the day on which they run; those up to `after_ms` may be left out."""
    days = 0 if target is None else target - source
    skipped_s = moment.instant_s(moment.local_s(after_ms // 1000) - days * DAY_S)
    end_ms = _start_ms(moment, source + 1)
    for hit in hits(max(_start_ms(moment, source), skipped_s * 1000) - 1):
        if hit.at_ms >= end_ms:
            return
        if source == target or hit.reason:
            yield hit
            continue
        at_s, ms = divmod(hit.at_ms, 1000)
        local_s = moment.local_s(at_s)
        if target is None:
            yield _on_holiday(hit, local_s, "no working day within a year")
            continue
        runs_s = moment.instant_s(local_s + days * DAY_S)
        yield Hit(runs_s * 1000 + ms, (*hit.notes, _note(local_s, moment.local_s(runs_s))))


def _note(local_s: int, runs_s: int) -> Note:
    return Note(
        "holiday",
        f"{day_text(local_s)} is a holiday, {clock_text(local_s)} runs on {day_text(runs_s)}",
    )


def _on_holiday(hit: Hit, local_s: int, what: str) -> Hit:
    return Hit(hit.at_ms, (), "holiday", f"{day_text(local_s)} is a holiday: {what}")


def _start_ms(moment: Zone, day: int) -> int:
    return moment.instant_s(day * DAY_S) * 1000
