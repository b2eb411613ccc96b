"""/v1/schedules: recurring jobs. The leader computes fire times; here they are only described."""

from __future__ import annotations

import hashlib
import re
import secrets

from aiohttp import web
from msgspec import Raw

from cluster.actors.services import Services
from cluster.api.codec import BodyDecoder
from cluster.api.errors import refusal
from cluster.api.intake import refuse
from cluster.api.models import SCHEDULE_ID, JobRequest, PageQuery
from cluster.api.routing import Call, Empty, Header, Query, Routes, respond
from cluster.api.schedule_answers import (
    ScheduleAnswer,
    ScheduleChanged,
    ScheduleResumed,
    SchedulesPage,
)
from cluster.api.schedule_intake import needs_final_id, plan_of, schedule_request
from cluster.api.schedule_models import PauseRequest, ScheduleRequest
from cluster.api.schedule_put import (
    Stored,
    changed_request,
    condition_of,
    create,
    draft,
    find,
    named,
    resume,
    same,
    update,
)
from cluster.api.schedule_render import changed_answer, resumed_answer, schedule_answer
from cluster.api.submission import (
    IDEMPOTENCY_KEY,
    REPLAYED,
    RequestKey,
    propose,
    request_key,
)
from cluster.machine import views
from cluster.machine.commands import DeleteSchedule, PauseSchedule
from cluster.machine.results import Rejected
from cluster.machine.views import ScheduleView

routes = Routes("schedules")

IF_MATCH = Header("If-Match", 'The version to change, like "3"; of another one nothing is changed.')
IF_NONE_MATCH = Header("If-None-Match", "`*`: only if there is none of this id.")

_decode_fields: BodyDecoder[dict[str, Raw]] = BodyDecoder(dict[str, Raw], False)


@routes.add(
    "POST",
    "/v1/schedules",
    "Create a schedule",
    body=ScheduleRequest,
    answer=ScheduleAnswer,
    status=201,
    headers=(IDEMPOTENCY_KEY,),
    problems=("validation", "payload_too_large", "conflict", "idempotency_mismatch"),
)
async def create_schedule(call: Call[ScheduleRequest, Query]) -> web.Response:
    key = request_key(call.request, call.raw, call.services)
    return await create_once(call.services, call.body, key)


async def create_from_job(
    call: Call[JobRequest, Query], request: JobRequest, key: RequestKey
) -> web.Response:
    """POST /v1/jobs with `schedule`."""
    return await create_once(call.services, schedule_request(request), key)


async def create_once(
    services: Services, request: ScheduleRequest, key: RequestKey
) -> web.Response:
    view, replayed = await put(services, request, key)
    headers = {"Location": f"/v1/schedules/{view.id}", **etag(view)}
    return respond(schedule_answer(view), 201, {**headers, **(REPLAYED if replayed else {})})


def etag(view: ScheduleView) -> dict[str, str]:
    return {"ETag": f'"{view.version}"'}


async def put(
    services: Services, request: ScheduleRequest, key: RequestKey
) -> tuple[ScheduleView, bool]:
    """Create it; True when the same request created it before.

    With an idempotency key and no id, the id follows from the key, so that a repetition meets what
    the first request made."""
    schedule_id = request.id or (_id_of(key.key) if key.key else "")
    if not schedule_id and needs_final_id(plan_of(request, 0)):
        schedule_id = "k-" + secrets.token_hex(9)
    created = await create(services, request, schedule_id)
    if isinstance(created, ScheduleView):
        return created, False
    if created is not Rejected.CONFLICT or request.id is not None:
        raise refusal(created, "/id" if created is Rejected.CONFLICT else None)
    existing = find(services, schedule_id)
    if not same(existing, await draft(services, request, schedule_id, existing)):
        raise refusal(Rejected.KEY_MISMATCH)
    return existing, True


def _id_of(key: str) -> str:
    return "k-" + hashlib.blake2b(key.encode(), digest_size=9).hexdigest()


@routes.add(
    "GET",
    "/v1/schedules",
    "List schedules in order of id",
    query=PageQuery,
    answer=SchedulesPage,
)
async def list_schedules(call: Call[None, PageQuery]) -> SchedulesPage:
    limit = call.query.limit
    found = views.schedules(call.services.raft.state, call.query.cursor, limit + 1)
    more = len(found) > limit
    return SchedulesPage(
        [schedule_answer(view) for view in found[:limit]], found[limit - 1].id if more else None
    )


@routes.add(
    "GET",
    "/v1/schedules/{schedule_id}",
    "Show a schedule",
    answer=ScheduleAnswer,
    problems=("unknown_schedule",),
)
async def get_schedule(call: Call[None, Query]) -> web.Response:
    view = find(call.services, call.path("schedule_id"))
    return respond(schedule_answer(view), 200, etag(view))


@routes.add(
    "PUT",
    "/v1/schedules/{schedule_id}",
    "Create a schedule or replace its definition",
    body=ScheduleRequest,
    answer=ScheduleChanged,
    headers=(IF_MATCH, IF_NONE_MATCH),
    problems=("validation", "payload_too_large", "conflict", "version_mismatch"),
)
async def put_schedule(call: Call[ScheduleRequest, Query]) -> web.Response:
    """201 when it is new. History and counts stay, and so does a pause unless `paused` is given; a
    definition that is stored already changes nothing."""
    schedule_id = call.path("schedule_id")
    if not re.match(SCHEDULE_ID, schedule_id):
        raise refuse("/id", f"{schedule_id!r:.130} cannot be the id of a schedule: see `id`")
    request = named(call.body, schedule_id)
    condition = condition_of(call.request)
    return _changed(await update(call.services, schedule_id, lambda _: request, condition))


@routes.add(
    "PATCH",
    "/v1/schedules/{schedule_id}",
    "Change fields of a schedule",
    body=ScheduleRequest,
    decodes=False,
    answer=ScheduleChanged,
    headers=(IF_MATCH,),
    problems=("validation", "payload_too_large", "unknown_schedule", "version_mismatch"),
)
async def change_schedule(call: Call[None, Query]) -> web.Response:
    """Takes any of the fields, none is required; null takes one back to its default. A new
    `schedule`, `every_seconds`, `at` or `any_of` replaces the one that was there."""
    schedule_id = call.path("schedule_id")
    fields = _decode_fields.decode(call.raw, call.request.headers.get("Content-Type"))

    def build(before: ScheduleView | None) -> ScheduleRequest:
        view = before or find(call.services, schedule_id)
        return named(changed_request(view, fields), schedule_id)

    return _changed(await update(call.services, schedule_id, build, condition_of(call.request)))


def _changed(stored: Stored) -> web.Response:
    headers = etag(stored.view)
    if stored.outcome == "created":
        headers["Location"] = f"/v1/schedules/{stored.view.id}"
    answer: ScheduleChanged = changed_answer(stored.outcome, stored.view, stored.before)
    return respond(answer, 201 if stored.outcome == "created" else 200, headers)


@routes.add(
    "DELETE",
    "/v1/schedules/{schedule_id}",
    "Delete a schedule; jobs it made stay",
    status=204,
    problems=("unknown_schedule",),
)
async def delete_schedule(call: Call[None, Query]) -> None:
    schedule_id = call.path("schedule_id")
    await propose(call.services, DeleteSchedule(schedule_id))


@routes.add(
    "POST",
    "/v1/schedules/{schedule_id}/pause",
    "Launch nothing more until resumed",
    body=PauseRequest,
    body_optional=True,
    answer=ScheduleAnswer,
    problems=("unknown_schedule",),
)
async def pause_schedule(call: Call[PauseRequest, Query]) -> ScheduleAnswer:
    schedule_id = call.path("schedule_id")
    await propose(call.services, PauseSchedule(schedule_id, call.body.note))
    return schedule_answer(find(call.services, schedule_id))


@routes.add(
    "POST",
    "/v1/schedules/{schedule_id}/resume",
    "Go on with the next occurrence after now",
    body=Empty,
    body_optional=True,
    answer=ScheduleResumed,
    problems=("unknown_schedule",),
)
async def resume_schedule(call: Call[Empty, Query]) -> ScheduleResumed:
    """Answers what the pause left out; to make up for it, backfill that time."""
    services, schedule_id = call.services, call.path("schedule_id")
    missed = await resume(services, find(services, schedule_id))
    return resumed_answer(find(services, schedule_id), missed)
