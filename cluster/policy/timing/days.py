"""Which days an expression names: croniter steps plain fields, a filter of our own does the rest.

croniter lacks `L-3`, `LW` and `5L`, refuses `W` in lists, and joins `W` and `#` with a weekday by
"and" where cron says "or". So a day field with any of these goes through `days_of_month`. As in
Debian's cron, day and weekday are joined by "or" unless one of them starts with a star.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date
from functools import lru_cache

from croniter import CroniterBadDateError, croniter
from msgspec import Struct

from cluster.policy.timing.fields import DAY, MONTH, WEEKDAY, impossible, values

YEARS_MAX = 50  # 29 February on a Sunday is 28, over 2100 it is 40 years away
EPOCH_DAY = date(1970, 1, 1).toordinal()
DAY_MAX = date(9990, 1, 1).toordinal() - EPOCH_DAY
DAY_S = 86_400
CACHE_DAYS_MAX = 16_384
SATURDAY = 5  # as date.weekday()

_FROM_END = re.compile(r"l(?:-(\d+))?")
_NEAREST = re.compile(r"(?:(\d+)w|w(\d+))")
_NTH = re.compile(r"([^#]+)#([1-5])")
_LAST = re.compile(r"(?:(\w+)l|l(\d))")


class Days(Struct, frozen=True):
    """The day part of an expression. Numbers of weekdays are cron's: 0 is Sunday."""

    months: tuple[int, ...]
    days: tuple[int, ...] = ()
    weekdays: tuple[int, ...] = ()
    both: bool = True  # day and weekday must both match; else one of them is enough
    from_end: tuple[int, ...] = ()  # 0 is the last day of the month
    nearest: tuple[int, ...] = ()  # the working day nearest to this day
    last_working: bool = False
    nth: tuple[tuple[int, int], ...] = ()  # weekday and which one; 0 is the last

    @property
    def plain(self) -> bool:
        return not (self.from_end or self.nearest or self.last_working or self.nth)

    @property
    def every(self) -> bool:
        full = len(self.days) == 31, len(self.weekdays) == 7
        return len(self.months) == 12 and (all(full) if self.both else any(full))


def parse_days(fields: tuple[str, ...], hash_id: str) -> Days:
    """The last three of six fields. Raises TimingError."""
    both = fields[DAY].startswith("*") or fields[WEEKDAY].startswith("*")
    days: list[int] = []
    from_end: list[int] = []
    nearest: list[int] = []
    last_working = False
    for term in fields[DAY].split(","):
        if term == "lw":
            last_working = True
        elif end := _FROM_END.fullmatch(term):
            from_end.append(_bounded(int(end[1] or 0), 0, 30, DAY, term))
        elif near := _NEAREST.fullmatch(term):
            nearest.append(_bounded(int(near[1] or near[2]), 1, 31, DAY, term))
        else:
            days.extend(values(DAY, term, hash_id))
    weekdays: list[int] = []
    nth: list[tuple[int, int]] = []
    for term in fields[WEEKDAY].split(","):
        if ordinal := _NTH.fullmatch(term):
            nth.extend((day, int(ordinal[2])) for day in values(WEEKDAY, ordinal[1], hash_id))
        elif last := _LAST.fullmatch(term):
            nth.append((_one(last[1] or last[2], term, hash_id), 0))
        else:
            weekdays.extend(values(WEEKDAY, term, hash_id))
    return Days(
        values(MONTH, fields[MONTH], hash_id),
        tuple(sorted(set(days))),
        tuple(sorted(set(weekdays))),
        both,
        tuple(sorted(set(from_end))),
        tuple(sorted(set(nearest))),
        last_working,
        tuple(sorted(set(nth))),
    )


def weekday(day: int) -> int:
    """0 is Monday; day 0, 1970-01-01, was a Thursday."""
    return (day + 3) % 7


def next_day(days: Days, from_day: int) -> int | None:
    """The first day (since 1970) at or after `from_day`; None when none comes in 50 years."""
    if from_day > DAY_MAX:
        return None
    if days.every:
        return from_day
    return _next_plain(days, from_day) if days.plain else _next_other(days, from_day)


def days_of_month(days: Days, year: int, month: int) -> list[int]:
    """The days of one month that match, whatever the fields say."""
    if month not in days.months:
        return []
    first, length = monthrange(year, month)
    chosen = {day for day in days.days if day <= length}
    chosen |= {length - back for back in days.from_end if back < length}
    chosen |= {_nearest(day, first, length) for day in days.nearest if day <= length}
    if days.last_working:
        chosen.add(_nearest(length, first, length))
    named = set()
    for weekday in days.weekdays:
        named |= set(_weekdays(weekday, first, length))
    for weekday, which in days.nth:
        all_of_it = _weekdays(weekday, first, length)
        named |= set(all_of_it[which - 1 : which] if which else all_of_it[-1:])
    return sorted(chosen & named if days.both else chosen | named)


@lru_cache(maxsize=CACHE_DAYS_MAX)
def _next_plain(days: Days, from_day: int) -> int | None:
    try:
        at_s: float = _stepper(days).get_next(float, start_time=float(from_day * DAY_S - 1))
    except (CroniterBadDateError, OverflowError, OSError):
        return None
    return int(at_s) // DAY_S


@lru_cache(maxsize=CACHE_DAYS_MAX)
def _stepper(days: Days) -> croniter:
    """Whoever uses it says where it starts, so that sharing it is safe."""
    monthly, weekly = _written(days.days, 31), _written(days.weekdays, 7)
    if not days.both and "*" in (monthly, weekly):
        monthly, weekly = "*", "*"  # one of them always matches, and one of them is enough
    text = f"0 0 {monthly} {_written(days.months, 12)} {weekly}"
    return croniter(text, 0.0, day_or=not days.both, max_years_between_matches=YEARS_MAX)


@lru_cache(maxsize=CACHE_DAYS_MAX)
def _next_other(days: Days, from_day: int) -> int | None:
    start = date.fromordinal(EPOCH_DAY + from_day)
    year, month = start.year, start.month
    for _ in range(YEARS_MAX * 12 + 1):
        for day in days_of_month(days, year, month):
            number = date(year, month, day).toordinal() - EPOCH_DAY
            if number >= from_day:
                return number
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return None


def _written(numbers: tuple[int, ...], count: int) -> str:
    return "*" if len(numbers) == count else ",".join(map(str, numbers))


def _weekdays(weekday: int, first: int, length: int) -> list[int]:
    """The days of the month that are this weekday; `first` is the weekday of the 1st."""
    return list(range((weekday - 1 - first) % 7 + 1, length + 1, 7))


def _nearest(day: int, first: int, length: int) -> int:
    """The working day nearest to `day` that does not leave the month."""
    beyond = (first + day - 1) % 7 - SATURDAY
    if beyond < 0:
        return day
    if beyond == 0:
        return day - 1 if day > 1 else day + 2
    return day + 1 if day < length else day - 2


def _one(text: str, term: str, hash_id: str) -> int:
    found = values(WEEKDAY, text, hash_id)
    if len(found) != 1:
        raise impossible(WEEKDAY, term)
    return found[0]


def _bounded(number: int, low: int, high: int, place: int, term: str) -> int:
    if not low <= number <= high:
        raise impossible(place, term)
    return number
