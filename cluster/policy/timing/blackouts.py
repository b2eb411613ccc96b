"""Blackouts: stretches of time in which nothing is launched, whatever the triggers say."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from cluster.plan import Plan
from cluster.policy.timing.hits import Hit, clock_text
from cluster.policy.timing.triggers import Hits
from cluster.policy.timing.windows import is_open
from cluster.policy.timing.zones import Zone, local_text


def outside_blackouts(plan: Plan, moment: Zone, hits: Hits) -> Hits:
    """The hits with those inside a blackout taken out."""
    if not plan.blackouts and not plan.blackout_windows:
        return hits
    return lambda after_ms: _filtered(plan, moment, hits(after_ms))


def blackout_end_ms(plan: Plan, at_ms: int) -> int:
    """The end of the span that holds this instant; 0 outside of all."""
    at = bisect_right(plan.blackouts, at_ms, key=lambda span: span.from_ms)
    return plan.blackouts[at - 1].until_ms if at and at_ms < plan.blackouts[at - 1].until_ms else 0


def _filtered(plan: Plan, moment: Zone, hits: Iterator[Hit]) -> Iterator[Hit]:
    for hit in hits:
        text = "" if hit.reason else _blackout_text(plan, moment, hit.at_ms)
        yield Hit(hit.at_ms, (), "blackout", text) if text else hit


def _blackout_text(plan: Plan, moment: Zone, at_ms: int) -> str:
    if until_ms := blackout_end_ms(plan, at_ms):
        return f"in a blackout until {local_text(until_ms, plan.timezone)}"
    local_s = moment.local_s(at_ms // 1000)
    if plan.blackout_windows and is_open(plan.blackout_windows, local_s):
        return f"{clock_text(local_s)} is in a daily blackout"
    return ""
