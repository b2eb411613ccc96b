"""/v1/schedules, and schedules declared in code that are brought to the cluster by id.

Code wins: a declared schedule whose definition differs from the stored one replaces it, while one
that is equal is left alone with its history and its pause.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from . import payloads
from .errors import Conflict, NotFound
from .requests import option_fields
from .transport import Consistency, Transport
from .views import ScheduleView, read


class _Schedules(msgspec.Struct):
    items: list[ScheduleView] = []


class ScheduleSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule as declared: exactly one of `schedule` (cron, UTC) and `every_seconds`."""

    id: str
    name: str
    schedule: str | None = None
    every_seconds: float | None = None
    payload: Any = None
    options: Mapping[str, Any] = {}

    def body(self) -> dict[str, Any]:
        """The request that creates it."""
        fields = {"id": self.id, "name": self.name, **option_fields(self.options)}
        for name in ("schedule", "every_seconds", "payload"):
            value = getattr(self, name)
            if value is not None:
                fields[name] = value
        return fields

    def same_as(self, view: ScheduleView) -> bool:
        """True when the stored schedule says what the code says."""
        payload = msgspec.to_builtins(self.payload)
        return (
            view.name == self.name
            and view.schedule == self.schedule
            and view.every_seconds == self.every_seconds
            and view.payload == payload
            and view.queue == self.options.get("queue", "default")
        )


class Schedules:
    """/v1/schedules"""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(
        self,
        name: str,
        schedule: str | None = None,
        *,
        every_seconds: float | None = None,
        id: str | None = None,
        payload: Any = None,
        **options: Any,
    ) -> ScheduleView:
        """Creates a cron (`schedule`, five fields, UTC) or interval schedule for task `name`.

        Conflict when `id` is taken.
        """
        if (schedule is None) == (every_seconds is None):
            raise ValueError("give exactly one of schedule and every_seconds")
        body = {"name": name, **option_fields(options)}
        optional = {"id": id, "schedule": schedule, "every_seconds": every_seconds}
        body.update({k: v for k, v in optional.items() if v is not None})
        if payload is not None:
            body["payload"] = payload
        return await self._post("/v1/schedules", body, replayable=True)

    async def list(self, *, consistency: Consistency | None = None) -> Sequence[ScheduleView]:
        """Every schedule."""
        response = await self._transport.request(
            "GET", "/v1/schedules", params={"consistency": consistency}
        )
        return read(response.body, _Schedules).items

    async def get(
        self, schedule_id: str, *, consistency: Consistency | None = None
    ) -> ScheduleView:
        """One schedule."""
        response = await self._transport.request(
            "GET",
            f"/v1/schedules/{quote(schedule_id, safe='')}",
            params={"consistency": consistency},
        )
        return read(response.body, ScheduleView)

    async def delete(self, schedule_id: str) -> None:
        """Deletes the schedule; jobs it made stay."""
        await self._transport.request("DELETE", f"/v1/schedules/{quote(schedule_id, safe='')}")

    async def pause(self, schedule_id: str, note: str | None = None) -> ScheduleView:
        """No more runs until `resume`."""
        body = {} if note is None else {"note": note}
        return await self._post(
            f"/v1/schedules/{quote(schedule_id, safe='')}/pause", body, replayable=True
        )

    async def resume(self, schedule_id: str) -> ScheduleView:
        """Goes on with the next run after now."""
        return await self._post(
            f"/v1/schedules/{quote(schedule_id, safe='')}/resume", {}, replayable=True
        )

    async def trigger(self, schedule_id: str) -> str:
        """Runs it now, once; the id of the job."""
        answer = await self._transport.json(
            "POST", f"/v1/schedules/{quote(schedule_id, safe='')}/trigger", {}, replayable=False
        )
        return str(answer["job_id"])

    async def ensure(self, spec: ScheduleSpec) -> ScheduleView:
        """Makes the stored schedule equal to the declared one (see the module's rule)."""
        try:
            stored = await self.get(spec.id)
        except NotFound:
            try:
                return await self._post("/v1/schedules", spec.body(), replayable=True)
            except Conflict:  # another worker of the same application was faster
                return await self.get(spec.id)
        if spec.same_as(stored):
            return stored
        with contextlib.suppress(NotFound):
            await self.delete(spec.id)
        try:
            created = await self._post("/v1/schedules", spec.body(), replayable=True)
        except Conflict:
            return await self.get(spec.id)
        return await self.pause(spec.id, stored.note) if stored.paused else created

    async def _post(self, path: str, body: Any, *, replayable: bool) -> ScheduleView:
        response = await self._transport.request(
            "POST", path, payloads.encode(body), replayable=replayable
        )
        return read(response.body, ScheduleView)
