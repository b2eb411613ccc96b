"""Plans and instants in few words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any

from cluster.plan import Plan, Trigger
from cluster.policy.timing import Occurrence, Omitted, local_text, next_occurrence, walk

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
NO_CALENDARS: Mapping[str, frozenset[int]] = {}


def at(text: str) -> int:
    """The instant of an ISO text, UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def days(*texts: str) -> frozenset[int]:
    return frozenset(date.fromisoformat(t).toordinal() - 719_163 for t in texts)


def cron(expression: str, timezone: str = "UTC", **fields: Any) -> Plan:
    return Plan((Trigger(cron=expression),), timezone=timezone, **fields)


def dst(expression: str, timezone: str, gap: str = "run", repeat: str = "first") -> Plan:
    return cron(expression, timezone, dst_explicit=True, gap=gap, repeat=repeat)


def steps(
    plan: Plan,
    after: str,
    count: int,
    calendars: Mapping[str, frozenset[int]] = NO_CALENDARS,
    schedule_id: str = "s",
) -> list[Occurrence | Omitted]:
    return list(islice(walk(plan, schedule_id, at(after), calendars), count))


def shown(
    plan: Plan,
    after: str,
    count: int,
    calendars: Mapping[str, frozenset[int]] = NO_CALENDARS,
) -> list[str]:
    """Local times without the zone; an omitted one starts with its reason."""
    lines = []
    for step in steps(plan, after, count, calendars):
        text = local_text(step.nominal_ms, plan.timezone).split("[", 1)[0]
        lines.append(f"{step.reason} {text}" if isinstance(step, Omitted) else text)
    return lines


def ahead(plan: Plan, after_ms: int, count: int, schedule_id: str = "s") -> list[int]:
    """The nominal instants that repeated questions give."""
    found: list[int] = []
    while len(found) < count:
        step = next_occurrence(plan, schedule_id, after_ms, NO_CALENDARS)
        if step is None:
            break
        after_ms = step.nominal_ms
        found.append(after_ms)
    return found
