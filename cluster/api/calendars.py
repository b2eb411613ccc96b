"""/v1/calendars: named days that schedules look at. Explicit dates, replicated and editable.

A schedule that names a calendar is planned anew when it changes, by the leader.
"""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from cluster.actors.services import Services
from cluster.api import holiday_import
from cluster.api.calendar_models import (
    DAYS_MAX,
    CalendarAnswer,
    CalendarChange,
    CalendarContent,
    CalendarDay,
    CalendarRequest,
    CalendarsPage,
    CalendarSummary,
    ImportRecord,
    ImportRequest,
    Named,
    named_days,
    number_of,
    text_of,
)
from cluster.api.errors import ProblemError, refusal
from cluster.api.render import time_text
from cluster.api.routing import Call, Query, ReadQuery, Routes, respond
from cluster.machine import calendar_views
from cluster.machine.calendar_views import CalendarView
from cluster.machine.commands import DeleteCalendar, PutCalendar
from cluster.machine.results import Rejected

routes = Routes("calendars")

CHANGE_TRIES = 5
IMPORTS_KEPT = 50


def _summary(view: CalendarView) -> CalendarSummary:
    return CalendarSummary(
        name=view.name,
        description=view.description,
        version=view.version,
        day_count=len(view.days),
        first=text_of(view.days[0]) if view.days else None,
        last=text_of(view.days[-1]) if view.days else None,
        used_by=list(view.users),
        changed_at=time_text(view.changed_ms),
    )


def _answer(view: CalendarView) -> CalendarAnswer:
    return CalendarAnswer(
        name=view.name,
        description=view.description,
        version=view.version,
        days=[
            CalendarDay(text_of(day), label)
            for day, label in zip(view.days, view.labels, strict=True)
        ],
        used_by=list(view.users),
        imports=_imports(view),
        changed_at=time_text(view.changed_ms),
    )


def _imports(view: CalendarView) -> list[ImportRecord]:
    return msgspec.json.decode(view.source, type=list[ImportRecord]) if view.source else []


def _find(services: Services, name: str) -> CalendarView:
    view = calendar_views.calendar(services.raft.state, name)
    if view is None:
        raise ProblemError("unknown_calendar", f"no calendar is called {name!r:.80}")
    return view


def _created(view: CalendarView) -> web.Response:
    return respond(_answer(view), 201, {"Location": f"/v1/calendars/{view.name}"})


async def _put(
    services: Services,
    name: str,
    named: Named,
    description: str,
    imports: list[ImportRecord],
    seen: CalendarView | None,
) -> CalendarView | None:
    """The calendar as it is now; None when it changed since it was `seen`."""
    if len(named) > DAYS_MAX:
        raise ProblemError("validation", f"a calendar has at most {DAYS_MAX:,} days", pointer="")
    command = PutCalendar(
        name=name,
        days=sorted(named),
        labels=[named[day] for day in sorted(named)],
        description=description,
        source=msgspec.json.encode(imports[-IMPORTS_KEPT:]).decode() if imports else "",
        expected_version=seen.version if seen is not None else 0,
    )
    result = await services.proposer.propose(command)
    if result is Rejected.STALE_VERSION:
        return None
    if isinstance(result, Rejected):
        raise refusal(result)
    return _find(services, name)


def _named(view: CalendarView) -> Named:
    return dict(zip(view.days, view.labels, strict=True))


@routes.add("GET", "/v1/calendars", "List the calendars", answer=CalendarsPage)
async def list_calendars(call: Call[None, ReadQuery]) -> CalendarsPage:
    found = calendar_views.calendars(call.services.raft.state)
    return CalendarsPage([_summary(view) for view in found])


@routes.add(
    "POST",
    "/v1/calendars",
    "Create a calendar from dates",
    body=CalendarRequest,
    answer=CalendarAnswer,
    status=201,
    problems=("validation", "conflict"),
)
async def create_calendar(call: Call[CalendarRequest, Query]) -> web.Response:
    services, request = call.services, call.body
    named = named_days(request.days, "/days")
    if calendar_views.calendar(services.raft.state, request.name) is not None:
        raise ProblemError("conflict", f"{request.name} exists already", pointer="/name")
    view = await _put(services, request.name, named, request.description, [], None)
    assert view is not None  # any version is right
    return _created(view)


@routes.add(
    "POST",
    "/v1/calendars/import",
    "Take public holidays or an exchange's closing days into a calendar",
    body=ImportRequest,
    answer=CalendarAnswer,
    problems=("validation", "import_unavailable", "version_mismatch"),
)
async def import_calendar(call: Call[ImportRequest, Query]) -> CalendarAnswer:
    """The dates are looked up once and stored: another release of the package changes nothing."""
    request = call.body
    found = await asyncio.to_thread(holiday_import.holidays_of, request)
    record = ImportRecord(
        sorted(set(request.years)),
        f"holidays {holiday_import.release()}",
        request.country,
        request.subdivision,
        request.exchange,
    )

    def merged(seen: CalendarView | None) -> tuple[Named, str, list[ImportRecord]]:
        if seen is None:
            return found, "", [record]
        if request.replace:
            return found, seen.description, [record]
        return {**_named(seen), **found}, seen.description, [*_imports(seen), record]

    for _ in range(CHANGE_TRIES):
        seen = calendar_views.calendar(call.services.raft.state, request.name)
        view = await _put(call.services, request.name, *merged(seen), seen)
        if view is not None:
            return _answer(view)
    raise _busy(request.name)


@routes.add(
    "GET",
    "/v1/calendars/{name}",
    "Show a calendar with its days",
    answer=CalendarAnswer,
    problems=("unknown_calendar",),
)
async def get_calendar(call: Call[None, ReadQuery]) -> CalendarAnswer:
    return _answer(_find(call.services, call.path("name")))


@routes.add(
    "PUT",
    "/v1/calendars/{name}",
    "Create a calendar or set all of its days",
    body=CalendarContent,
    answer=CalendarAnswer,
    problems=("validation",),
)
async def put_calendar(call: Call[CalendarContent, Query]) -> web.StreamResponse:
    services = call.services
    request = _request(call.path("name"), call.body)
    is_new = calendar_views.calendar(services.raft.state, request.name) is None
    named = named_days(request.days, "/days")
    view = await _put(services, request.name, named, request.description, [], None)
    assert view is not None  # any version is right
    return _created(view) if is_new else respond(_answer(view))


def _request(name: str, content: CalendarContent) -> CalendarRequest:
    try:
        msgspec.convert({"name": name}, CalendarRequest)
    except msgspec.ValidationError:
        raise ProblemError("validation", f"{name!r:.80} cannot be a calendar's name") from None
    return CalendarRequest(name, content.days, content.description)


@routes.add(
    "PATCH",
    "/v1/calendars/{name}",
    "Add and remove days",
    body=CalendarChange,
    answer=CalendarAnswer,
    problems=("validation", "unknown_calendar", "version_mismatch"),
)
async def change_calendar(call: Call[CalendarChange, Query]) -> CalendarAnswer:
    name, change = call.path("name"), call.body
    added = named_days(change.add, "/add")
    removed = {number_of(day, f"/remove/{i}") for i, day in enumerate(change.remove)}
    if both := sorted(added.keys() & removed):
        raise ProblemError(
            "validation", f"{text_of(both[0])} is both added and removed", pointer="/remove"
        )
    for _ in range(CHANGE_TRIES):
        seen = _find(call.services, name)
        named = {d: label for d, label in _named(seen).items() if d not in removed} | added
        description = seen.description if change.description is None else change.description
        view = await _put(call.services, name, named, description, _imports(seen), seen)
        if view is not None:
            return _answer(view)
    raise _busy(name)


def _busy(name: str) -> ProblemError:
    return ProblemError("version_mismatch", f"{name} keeps changing; nothing was done, try again")


@routes.add(
    "DELETE",
    "/v1/calendars/{name}",
    "Delete a calendar that no schedule names",
    status=204,
    problems=("unknown_calendar", "in_use"),
)
async def delete_calendar(call: Call[None, Query]) -> None:
    name = call.path("name")
    result = await call.services.proposer.propose(DeleteCalendar(name))
    if result is Rejected.IN_USE:
        users = _find(call.services, name).users
        shown = ", ".join(users[:5]) + (", ..." if len(users) > 5 else "")
        raise ProblemError("in_use", f"{name} is named by {len(users)} schedule(s): {shown}")
    if isinstance(result, Rejected):
        raise refusal(result)
