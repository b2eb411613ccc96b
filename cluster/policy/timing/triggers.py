"""All that the triggers of a plan name together, without what its exceptions name."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator

from cluster.plan import Plan, Trigger
from cluster.policy.timing.dst import Rule, cron_hits
from cluster.policy.timing.hits import Hit, merged
from cluster.policy.timing.parse import parse
from cluster.policy.timing.zones import Zone, zone

Hits = Callable[[int], Iterator[Hit]]  # from an instant (exclusive) to the hits after it


def next_every_ms(anchor_ms: int, every_ms: int, after_ms: int) -> int:
    """The first of anchor, anchor + every, anchor + 2 every ... strictly after `after_ms`."""
    if after_ms < anchor_ms:
        return anchor_ms
    return anchor_ms + ((after_ms - anchor_ms) // every_ms + 1) * every_ms


def named(plan: Plan, schedule_id: str) -> Hits:
    """Union and exclusion. Raises TimingError for an expression that is not one."""
    moment = zone(plan.timezone)
    sources = [_source(trigger, plan, moment, schedule_id) for trigger in plan.triggers]
    exceptions = [_source(trigger, plan, moment, schedule_id) for trigger in plan.unless]
    if len(sources) == 1 and not exceptions:
        return sources[0]

    def hits(after_ms: int) -> Iterator[Hit]:
        union = merged([source(after_ms) for source in sources])
        if not exceptions:
            yield from union
            return
        excluded = _Excluded(exceptions)
        for hit in union:
            if not hit.reason and excluded.has(hit.at_ms):
                yield Hit(hit.at_ms, (), "excluded", "an exception names this instant")
            else:
                yield hit

    return hits


class _Excluded:
    """Asked with rising instants, so that each exception is stepped through at most once."""

    def __init__(self, exceptions: list[Hits]) -> None:
        self._exceptions = exceptions
        self._upcoming: list[int | None] = [-1] * len(exceptions)

    def has(self, at_ms: int) -> bool:
        return any(self._reaches(place, at_ms) for place in range(len(self._exceptions)))

    def _reaches(self, place: int, at_ms: int) -> bool:
        upcoming_ms = self._upcoming[place]
        if upcoming_ms is not None and upcoming_ms < at_ms:
            standing = (hit for hit in self._exceptions[place](at_ms - 1) if not hit.reason)
            first = next(standing, None)
            upcoming_ms = self._upcoming[place] = first.at_ms if first else None
        return upcoming_ms == at_ms


def _source(trigger: Trigger, plan: Plan, moment: Zone, schedule_id: str) -> Hits:
    if trigger.cron:
        expression = parse(trigger.cron, schedule_id)
        real_time = expression.wildcard and not plan.dst_explicit
        rule = Rule(plan.gap, plan.repeat) if plan.dst_explicit else Rule(real_time=real_time)
        return lambda after_ms: cron_hits(expression, moment, rule, after_ms)
    if trigger.every_ms:
        return lambda after_ms: _every(trigger.anchor_ms, trigger.every_ms, after_ms)
    return lambda after_ms: _at(trigger.at_ms, after_ms)


def _every(anchor_ms: int, every_ms: int, after_ms: int) -> Iterator[Hit]:
    at_ms = next_every_ms(anchor_ms, every_ms, after_ms)
    while True:
        yield Hit(at_ms)
        at_ms += every_ms


def _at(times_ms: tuple[int, ...], after_ms: int) -> Iterator[Hit]:
    for at_ms in times_ms[bisect_right(times_ms, after_ms) :]:
        yield Hit(at_ms)
