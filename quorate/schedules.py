"""/v1/schedules, and schedules declared in code that are brought to the cluster by id.

Code wins: a declared schedule whose definition differs from the stored one replaces it, with its
history and its pause, while one that is equal is left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar, Unpack
from urllib.parse import quote

import msgspec

from . import payloads
from .durations import Duration, to_rfc3339
from .requests import Priority, option_fields
from .schedule_options import (
    Moment,
    Overlap,
    ScheduleChanges,
    ScheduleOptions,
    Trigger,
    change_fields,
    schedule_fields,
)
from .schedule_views import (
    Backfill,
    BackfillProgress,
    Forecast,
    ScheduleChange,
    ScheduleDiff,
    ScheduleEvent,
    ScheduleResumed,
    ScheduleView,
)
from .transport import Consistency, Transport
from .views import JobView, Page, read

PAGE_SCHEDULES = 200
T = TypeVar("T")


class _Backfills(msgspec.Struct):
    items: list[BackfillProgress] = []


class _Events(msgspec.Struct):
    events: list[ScheduleEvent] = []
    next_cursor: str | None = None


class ScheduleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as declared; `options` are named as `Schedules.put` takes them."""

    id: str
    name: str
    payload: Any = None
    options: Mapping[str, Any] = {}

    def body(self) -> dict[str, Any]:
        """The request that makes it."""
        fields = {"name": self.name, **schedule_fields(self.options)}
        return fields if self.payload is None else {**fields, "payload": self.payload}


class Schedules:
    """/v1/schedules"""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(
        self,
        name: str,
        schedule: str | None = None,
        *,
        every: Duration | None = None,
        every_seconds: float | None = None,
        at: Sequence[Moment] | Moment | None = None,
        any_of: Sequence[Trigger] | None = None,
        id: str | None = None,
        payload: Any = None,
        **options: Unpack[ScheduleOptions],
    ) -> ScheduleView:
        """Creates a schedule for task `name`, of a cron line, an interval, moments, or several of
        these (`any_of`). Conflict when `id` is taken."""
        when = _when(schedule, every, every_seconds, at, any_of)
        body = schedule_fields({"name": name, "id": id, "payload": payload, **when, **options})
        return await self._send("POST", "/v1/schedules", body, ScheduleView)

    async def put(
        self,
        schedule_id: str,
        name: str,
        schedule: str | None = None,
        *,
        every: Duration | None = None,
        at: Sequence[Moment] | Moment | None = None,
        any_of: Sequence[Trigger] | None = None,
        payload: Any = None,
        if_version: int | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> ScheduleChange:
        """Creates the schedule or replaces its whole definition; history and pause stay.

        Conflict (code version_mismatch) when it is not at `if_version` any more."""
        when = _when(schedule, every, None, at, any_of)
        body = schedule_fields({"name": name, "payload": payload, **when, **options})
        return await self._send("PUT", _path(schedule_id), body, ScheduleChange, if_version)

    async def change(
        self,
        schedule_id: str,
        *,
        if_version: int | None = None,
        **changes: Unpack[ScheduleChanges],
    ) -> ScheduleChange:
        """Changes only what is named; None takes a field back to its default."""
        body = change_fields(changes)
        return await self._send("PATCH", _path(schedule_id), body, ScheduleChange, if_version)

    async def list(self, *, consistency: Consistency | None = None) -> Sequence[ScheduleView]:
        """Every schedule."""
        return [view async for view in self.iterate(consistency=consistency)]

    async def iterate(
        self, *, consistency: Consistency | None = None
    ) -> AsyncIterator[ScheduleView]:
        """Every schedule in order of id, page by page."""
        cursor: str | None = None
        while True:
            params = {"limit": PAGE_SCHEDULES, "cursor": cursor, "consistency": consistency}
            page = await self._get("/v1/schedules", Page[ScheduleView], params)
            for view in page.items:
                yield view
            cursor = page.next_cursor
            if cursor is None:
                return

    async def get(
        self, schedule_id: str, *, consistency: Consistency | None = None
    ) -> ScheduleView:
        """One schedule."""
        return await self._get(_path(schedule_id), ScheduleView, {"consistency": consistency})

    async def delete(self, schedule_id: str) -> None:
        """Deletes the schedule; jobs it made stay."""
        await self._transport.request("DELETE", _path(schedule_id))

    async def pause(self, schedule_id: str, note: str | None = None) -> ScheduleView:
        """No more runs until `resume`."""
        body = {} if note is None else {"note": note}
        return await self._send("POST", _path(schedule_id, "pause"), body, ScheduleView)

    async def resume(self, schedule_id: str) -> ScheduleResumed:
        """Goes on with the next run after now; tells what the pause left out."""
        return await self._send("POST", _path(schedule_id, "resume"), {}, ScheduleResumed)

    async def trigger(
        self,
        schedule_id: str,
        *,
        payload: Any = None,
        queue: str | None = None,
        priority: Priority | None = None,
        max_retries: int | None = None,
        timeout: Duration | None = None,
        overlap: Overlap | None = None,
    ) -> str | None:
        """Runs it now, once, perhaps with other options; the id of the job, None when `overlap`
        (allow_all by default) makes it wait or leaves it out."""
        options = {
            "queue": queue, "priority": priority, "max_retries": max_retries, "timeout": timeout,
        }  # fmt: skip
        body = option_fields(options)
        if payload is not None:
            body["payload"] = payload
        if overlap is not None:
            body["overlap"] = overlap
        answer = await self._transport.json(
            "POST", _path(schedule_id, "trigger"), body, replayable=False
        )
        return None if answer["job_id"] is None else str(answer["job_id"])

    async def backfill(
        self,
        schedule_id: str,
        start: Moment,
        end: Moment,
        *,
        overlap: Overlap | None = None,
        per_minute: int | None = None,
        note: str | None = None,
        dry_run: bool = False,
    ) -> Backfill:
        """Runs the occurrences from `start` (included) until `end`; a dry run only tells them."""
        body: dict[str, Any] = {"from": to_rfc3339(start), "to": to_rfc3339(end)}
        more = {"overlap": overlap, "per_minute": per_minute, "note": note}
        body |= {name: value for name, value in more.items() if value is not None}
        if dry_run:
            body["dry_run"] = True
        return await self._send(
            "POST", _path(schedule_id, "backfill"), body, Backfill, replayable=dry_run
        )

    async def backfills(
        self, schedule_id: str, *, consistency: Consistency | None = None
    ) -> Sequence[BackfillProgress]:
        """How far backfills have come."""
        params = {"consistency": consistency}
        return (await self._get(_path(schedule_id, "backfills"), _Backfills, params)).items

    async def stop_backfill(self, schedule_id: str, backfill_id: int) -> None:
        """What has not started yet will not."""
        await self._transport.request("DELETE", _path(schedule_id, f"backfills/{backfill_id}"))

    async def next(
        self,
        schedule_id: str,
        count: int | None = None,
        *,
        after: Moment | None = None,
        omitted: bool = False,
        consistency: Consistency | None = None,
    ) -> Forecast:
        """The next runs, odd ones with their reason; `omitted` adds those that are taken out."""
        params = {
            "count": count,
            "after": None if after is None else to_rfc3339(after),
            "omitted": "true" if omitted else None,
            "consistency": consistency,
        }
        return await self._get(_path(schedule_id, "next"), Forecast, params)

    async def preview(
        self,
        schedule: str | None = None,
        *,
        every: Duration | None = None,
        at: Sequence[Moment] | Moment | None = None,
        any_of: Sequence[Trigger] | None = None,
        id: str | None = None,
        count: int | None = None,
        after: Moment | None = None,
        omitted: bool = False,
        **options: Unpack[ScheduleOptions],
    ) -> Forecast:
        """The runs of a schedule that need not exist. `id` seeds jitter and `H`."""
        when = _when(schedule, every, None, at, any_of)
        body = schedule_fields({"id": id, **when, **options})
        more = {
            "count": count,
            "after": None if after is None else to_rfc3339(after),
            "omitted": omitted or None,
        }
        body |= {name: value for name, value in more.items() if value is not None}
        return await self._send("POST", "/v1/schedules/preview", body, Forecast)

    async def diff(
        self,
        schedule_id: str,
        count: int | None = None,
        *,
        after: Moment | None = None,
        **changes: Unpack[ScheduleChanges],
    ) -> ScheduleDiff:
        """What `change` with the same arguments would do to the next runs."""
        params = {"count": count, "after": None if after is None else to_rfc3339(after)}
        response = await self._transport.request(
            "POST",
            _path(schedule_id, "diff"),
            payloads.encode(change_fields(changes)),
            params=params,
        )
        return read(response.body, ScheduleDiff)

    async def runs(
        self,
        schedule_id: str,
        *,
        nominal: Moment | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        consistency: Consistency | None = None,
    ) -> Page[JobView]:
        """Its jobs, newest first; with `nominal` those of one occurrence."""
        params = {
            "nominal": None if nominal is None else to_rfc3339(nominal),
            "limit": limit,
            "cursor": cursor,
            "consistency": consistency,
        }
        return await self._get(_path(schedule_id, "runs"), Page[JobView], params)

    async def timeline(
        self,
        schedule_id: str,
        *,
        limit: int | None = None,
        consistency: Consistency | None = None,
    ) -> Sequence[ScheduleEvent]:
        """What happened to it, newest first: launches, and everything that was left out and why."""
        params = {"limit": limit, "consistency": consistency}
        return (await self._get(_path(schedule_id, "timeline"), _Events, params)).events

    async def ensure(self, spec: ScheduleSpec) -> ScheduleView:
        """Makes the stored schedule equal to the declared one (see the module's rule)."""
        return await self._send("PUT", _path(spec.id), spec.body(), ScheduleChange)

    async def _get(self, path: str, kind: type[T], params: Mapping[str, Any]) -> T:
        response = await self._transport.request("GET", path, params=params)
        return read(response.body, kind)

    async def _send(
        self,
        method: str,
        path: str,
        body: Any,
        kind: type[T],
        if_version: int | None = None,
        *,
        replayable: bool = True,
    ) -> T:
        # A repetition of a conditional change would be refused for the version it made itself.
        headers = None if if_version is None else {"If-Match": f'"{if_version}"'}
        response = await self._transport.request(
            method,
            path,
            payloads.encode(body),
            headers=headers,
            replayable=replayable and if_version is None,
        )
        return read(response.body, kind)


def _path(schedule_id: str, verb: str = "") -> str:
    return f"/v1/schedules/{quote(schedule_id, safe='')}" + (f"/{verb}" if verb else "")


def _when(
    schedule: str | None,
    every: Duration | None,
    every_seconds: float | None,
    at: Any,
    any_of: Sequence[Trigger] | None,
) -> dict[str, Any]:
    """The trigger among the arguments; ValueError unless it is exactly one."""
    given = {
        "schedule": schedule, "every": every, "every_seconds": every_seconds, "at": at,
        "any_of": any_of,
    }  # fmt: skip
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        raise ValueError("give exactly one of schedule, every, at and any_of")
    return chosen
