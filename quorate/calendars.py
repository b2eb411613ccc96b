"""/v1/calendars: named days that schedules look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from . import payloads
from .transport import Consistency, Transport
from .views import read

Day = date | str
Days = Iterable[Day] | Mapping[Day, str]


class CalendarDay(msgspec.Struct, frozen=True, kw_only=True):
    """A local date: of the time zone of the schedule that looks at it."""

    date: date
    label: str = ""


class CalendarSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A calendar without its days; beyond `last` nothing is a holiday."""

    name: str
    description: str = ""
    version: int = 0
    day_count: int = 0
    first: date | None = None
    last: date | None = None
    used_by: list[str] = []
    changed_at: datetime | None = None


class CalendarView(msgspec.Struct, frozen=True, kw_only=True):
    """A calendar. `imports` tells where days came from, `used_by` which schedules name it."""

    name: str
    description: str = ""
    version: int = 0
    days: list[CalendarDay] = []
    used_by: list[str] = []
    imports: list[dict[str, Any]] = []
    changed_at: datetime | None = None


class _Calendars(msgspec.Struct):
    items: list[CalendarSummary] = []


def _texts(days: Iterable[Day]) -> list[str]:
    return [day if isinstance(day, str) else day.isoformat() for day in days]


def _days(days: Days) -> list[Any]:
    if isinstance(days, str):
        raise TypeError(f"days takes several dates: write [{days!r}]")
    if isinstance(days, Mapping):
        labels = list(days.values())
        return [
            {"date": text, "label": label} for text, label in zip(_texts(days), labels, strict=True)
        ]
    return list(_texts(days))


class Calendars:
    """Days are dates, texts like "2026-12-25", or a mapping of them to labels."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, consistency: Consistency | None = None) -> Sequence[CalendarSummary]:
        """Every calendar, by name."""
        response = await self._transport.request(
            "GET", "/v1/calendars", params={"consistency": consistency}
        )
        return read(response.body, _Calendars).items

    async def get(self, name: str, *, consistency: Consistency | None = None) -> CalendarView:
        """One calendar with its days."""
        response = await self._transport.request(
            "GET", _path(name), params={"consistency": consistency}
        )
        return read(response.body, CalendarView)

    async def create(self, name: str, days: Days = (), *, description: str = "") -> CalendarView:
        """A new calendar. Conflict when the name is taken."""
        body = {"name": name, "days": _days(days), "description": description}
        return await self._send("POST", "/v1/calendars", body)

    async def put(self, name: str, days: Days, *, description: str = "") -> CalendarView:
        """Creates the calendar or sets all of its days."""
        body = {"days": _days(days), "description": description}
        return await self._send("PUT", _path(name), body, replayable=True)

    async def change(
        self,
        name: str,
        *,
        add: Days = (),
        remove: Iterable[Day] = (),
        description: str | None = None,
    ) -> CalendarView:
        """Adds and removes days; the schedules that name the calendar are planned anew."""
        body: dict[str, Any] = {"add": _days(add), "remove": _texts(remove)}
        if description is not None:
            body["description"] = description
        return await self._send("PATCH", _path(name), body, replayable=True)

    async def import_holidays(
        self,
        name: str,
        years: Iterable[int],
        *,
        country: str | None = None,
        subdivision: str | None = None,
        exchange: str | None = None,
        replace: bool = False,
    ) -> CalendarView:
        """Takes the public holidays of a country or the closing days of an exchange into the
        calendar, which is made if need be and keeps its other days unless `replace` is set."""
        body: dict[str, Any] = {"name": name, "years": list(years), "replace": replace}
        places = {"country": country, "subdivision": subdivision, "exchange": exchange}
        body.update({key: value for key, value in places.items() if value is not None})
        return await self._send("POST", "/v1/calendars/import", body)

    async def delete(self, name: str) -> None:
        """Conflict while a schedule names it."""
        await self._transport.request("DELETE", _path(name), replayable=False)

    async def _send(
        self, method: str, path: str, body: Any, *, replayable: bool = False
    ) -> CalendarView:
        response = await self._transport.request(
            method, path, payloads.encode(body), replayable=replayable
        )
        return read(response.body, CalendarView)


def _path(name: str) -> str:
    return f"/v1/calendars/{quote(name, safe='')}"
