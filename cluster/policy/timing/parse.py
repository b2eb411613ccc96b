"""A cron expression as tables: which seconds, minutes and hours of which days, in local time.

Parsed once per expression and remembered, because a parse costs as much as a hundred answers. Only
an expression with `H` depends on the schedule.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache

from msgspec import Struct

from cluster.policy.timing.days import DAY_S, Days, next_day, parse_days
from cluster.policy.timing.errors import TimingError
from cluster.policy.timing.fields import HOUR, MINUTE, SECOND, is_hashed, split, values

CACHE_EXPRESSIONS_MAX = 4096


class Expression(Struct, frozen=True):
    """`wildcard`: it follows real time through a change of the clocks, as in Debian's cron."""

    fields: tuple[str, ...]
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: Days
    wildcard: bool

    def next_local(self, after_s: int) -> int | None:
        """The first matching second strictly after `after_s`, both in local time."""
        day, second = divmod(after_s + 1, DAY_S)
        found = next_day(self.days, day)
        if found is None:
            return None
        if found == day:
            at_s = self._next_in_day(second)
            if at_s is not None:
                return day * DAY_S + at_s
            found = next_day(self.days, day + 1)
            if found is None:
                return None
        return found * DAY_S + self.hours[0] * 3600 + self.minutes[0] * 60 + self.seconds[0]

    def _next_in_day(self, from_s: int) -> int | None:
        hour, minute, second = from_s // 3600, from_s // 60 % 60, from_s % 60
        at = bisect_left(self.hours, hour)
        if at == len(self.hours):
            return None
        if self.hours[at] == hour:
            in_hour = self._next_in_hour(minute, second)
            if in_hour is not None:
                return hour * 3600 + in_hour
            at += 1
            if at == len(self.hours):
                return None
        return self.hours[at] * 3600 + self.minutes[0] * 60 + self.seconds[0]

    def _next_in_hour(self, minute: int, second: int) -> int | None:
        at = bisect_left(self.minutes, minute)
        if at == len(self.minutes):
            return None
        if self.minutes[at] == minute:
            in_minute = bisect_left(self.seconds, second)
            if in_minute < len(self.seconds):
                return minute * 60 + self.seconds[in_minute]
            at += 1
            if at == len(self.minutes):
                return None
        return self.minutes[at] * 60 + self.seconds[0]


def parse(text: str, schedule_id: str) -> Expression:
    """Raises TimingError."""
    fields = _fields(text)
    return _parsed(fields, schedule_id if any(map(is_hashed, fields)) else "")


def depends_on_id(text: str) -> bool:
    return any(map(is_hashed, _fields(text)))


@lru_cache(maxsize=CACHE_EXPRESSIONS_MAX)
def _fields(text: str) -> tuple[str, ...]:
    return split(text)


@lru_cache(maxsize=CACHE_EXPRESSIONS_MAX)
def _parsed(fields: tuple[str, ...], hash_id: str) -> Expression:
    parsed = Expression(
        fields,
        values(SECOND, fields[SECOND], hash_id),
        values(MINUTE, fields[MINUTE], hash_id),
        values(HOUR, fields[HOUR], hash_id),
        parse_days(fields, hash_id),
        any(fields[place].startswith(("*", "h/")) for place in (SECOND, MINUTE, HOUR)),
    )
    if next_day(parsed.days, 0) is None:
        day, month, weekday = fields[3:]
        raise TimingError(
            f"cron {' '.join(fields)!r} never fires: day {day} with weekday {weekday} does not "
            f"exist in month {month}, write a day that does"
        )
    return parsed
