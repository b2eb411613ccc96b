"""What calendars' requests and answers look like, and days in their three forms.

A day is `2026-12-25` (or a label with it) to people, a number since 1970 to the machine.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated

from msgspec import Meta, Struct

from cluster.api.answers import Time
from cluster.api.errors import ProblemError

DAYS_MAX = 10_000
YEARS_MAX = 50
EPOCH_ORDINAL = 719_163  # of 1970-01-01
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Named = dict[int, str]  # days since 1970 with their labels

CalendarName = Annotated[
    str, Meta(pattern=NAME, description="Letters, digits, dot, dash and underscore.")
]
Description = Annotated[str, Meta(max_length=1_000)]
DayLabel = Annotated[str, Meta(max_length=128)]


class LabelledDay(Struct, forbid_unknown_fields=True, frozen=True):
    """A local date: of the time zone of the schedule that looks at it."""

    date: date
    label: DayLabel = ""


Days = Annotated[
    list[date | LabelledDay],
    Meta(max_length=DAYS_MAX, description='Dates like "2026-12-25", or with a label.'),
]


class CalendarRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A new calendar."""

    name: CalendarName
    days: Days = []
    description: Description = ""


class CalendarContent(Struct, forbid_unknown_fields=True, frozen=True):
    """All of a calendar but its name, which stands in the path."""

    days: Days
    description: Description = ""


class CalendarChange(Struct, forbid_unknown_fields=True, frozen=True):
    """Days to add (one that is there gets the new label) and to remove (one that is not there is no
    error)."""

    add: Days = []
    remove: Annotated[list[date], Meta(max_length=DAYS_MAX)] = []
    description: Description | None = None


class ImportRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """Public holidays of a country (and its subdivision) or closing days of an exchange. A calendar
    of this name keeps its other days, unless `replace` is set."""

    name: CalendarName
    years: Annotated[
        list[Annotated[int, Meta(ge=1970, le=2200)]], Meta(min_length=1, max_length=YEARS_MAX)
    ]
    country: str | None = None
    subdivision: str | None = None
    exchange: str | None = None
    replace: bool = False


class CalendarDay(Struct):
    date: str
    label: str


class CalendarSummary(Struct):
    """`day_count` days from `first` to `last`: beyond it nothing is a holiday."""

    name: str
    description: str
    version: int
    day_count: int
    first: str | None
    last: str | None
    used_by: list[str]
    changed_at: Time | None


class ImportRecord(Struct):
    """Where days came from; `release` is that of the package that named them."""

    years: list[int]
    release: str
    country: str | None = None
    subdivision: str | None = None
    exchange: str | None = None


class CalendarAnswer(Struct):
    """`imports`: where days came from, oldest first; `used_by`: schedules."""

    name: str
    description: str
    version: int
    days: list[CalendarDay]
    used_by: list[str]
    imports: list[ImportRecord]
    changed_at: Time | None


class CalendarsPage(Struct):
    items: list[CalendarSummary]


def named_days(days: list[date | LabelledDay], where: str) -> Named:
    """Raises ProblemError that points to a day before 1970 or one that is given twice."""
    named: Named = {}
    for index, day in enumerate(days):
        given = day if isinstance(day, LabelledDay) else LabelledDay(day)
        number = number_of(given.date, f"{where}/{index}")
        if number in named:
            raise ProblemError(
                "validation", f"{given.date} is given twice", pointer=f"{where}/{index}"
            )
        named[number] = given.label
    return named


def number_of(day: date, where: str) -> int:
    number = day.toordinal() - EPOCH_ORDINAL
    if number < 0:
        raise ProblemError("validation", f"{day} is before 1970", pointer=where)
    return number


def text_of(number: int) -> str:
    return date.fromordinal(number + EPOCH_ORDINAL).isoformat()
