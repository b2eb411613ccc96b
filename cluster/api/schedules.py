"""/v1/schedules: recurring jobs. The leader computes fire times; here they are only described."""

from __future__ import annotations

import hashlib

from aiohttp import web

from cluster.actors.services import Services
from cluster.api.answers import ScheduleAnswer, SchedulesPage, Triggered
from cluster.api.errors import ProblemError, refusal
from cluster.api.intake import schedule_of, schedule_request
from cluster.api.models import JobRequest, PageQuery, PauseRequest, ScheduleRequest
from cluster.api.render import schedule_answer
from cluster.api.routing import Call, Empty, Query, Routes, respond
from cluster.api.submission import (
    IDEMPOTENCY_KEY,
    REPLAYED,
    RequestKey,
    propose,
    request_key,
)
from cluster.machine import views
from cluster.machine.commands import (
    DeleteSchedule,
    PauseSchedule,
    PutSchedule,
    ResumeSchedule,
    TriggerSchedule,
)
from cluster.machine.results import Fired, Rejected, Result, Scheduled
from cluster.machine.views import ScheduleView
from cluster.policy.planning import first_occurrence

routes = Routes("schedules")


def find_schedule(services: Services, schedule_id: str) -> ScheduleView:
    """Raises unknown_schedule."""
    view = views.schedule(services.raft.state, schedule_id)
    if view is None:
        raise unknown_schedule(schedule_id)
    return view


def unknown_schedule(schedule_id: str) -> ProblemError:
    return ProblemError("unknown_schedule", f"no schedule has the id {schedule_id:.128}")


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
    return await create(call.services, call.body, key)


async def create_from_job(
    call: Call[JobRequest, Query], request: JobRequest, key: RequestKey
) -> web.Response:
    """POST /v1/jobs with `schedule`."""
    return await create(call.services, schedule_request(request), key)


async def create(services: Services, request: ScheduleRequest, key: RequestKey) -> web.Response:
    view, replayed = await put(services, request, key)
    location = {"Location": f"/v1/schedules/{view.id}"}
    return respond(schedule_answer(view), 201, {**location, **(REPLAYED if replayed else {})})


async def put(
    services: Services, request: ScheduleRequest, key: RequestKey
) -> tuple[ScheduleView, bool]:
    """Create it; True when the same request created it before.

    With an idempotency key and no id, the id follows from the key, so that a repetition meets what
    the first request made."""
    schedule_id = request.id or (_id_of(key.key) if key.key else "")
    command = schedule_of(request, schedule_id, services.clock.now_ms(), services.settings)
    result: Result = await services.proposer.propose(command)
    if isinstance(result, Scheduled):
        return find_schedule(services, result.schedule_id), False
    assert isinstance(result, Rejected), result
    if result is not Rejected.CONFLICT or request.id is not None:
        raise refusal(result, "/id" if result is Rejected.CONFLICT else None)
    existing = find_schedule(services, schedule_id)
    if not _same(existing, command):
        raise refusal(Rejected.KEY_MISMATCH)
    return existing, True


def _id_of(key: str) -> str:
    return "k-" + hashlib.blake2b(key.encode(), digest_size=9).hexdigest()


def _same(view: ScheduleView, command: PutSchedule) -> bool:
    return (
        view.spec == command.spec
        and view.payload == command.payload
        and view.cron == command.cron
        and view.every_ms == command.every_ms
        and view.queue_timeout_ms == command.queue_timeout_ms
        and view.total_timeout_ms == command.total_timeout_ms
    )


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
async def get_schedule(call: Call[None, Query]) -> ScheduleAnswer:
    return schedule_answer(find_schedule(call.services, call.path("schedule_id")))


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
    return schedule_answer(find_schedule(call.services, schedule_id))


@routes.add(
    "POST",
    "/v1/schedules/{schedule_id}/resume",
    "Go on with the next occurrence after now",
    body=Empty,
    body_optional=True,
    answer=ScheduleAnswer,
    problems=("unknown_schedule",),
)
async def resume_schedule(call: Call[Empty, Query]) -> ScheduleAnswer:
    services, schedule_id = call.services, call.path("schedule_id")
    view = find_schedule(services, schedule_id)
    next_ms = first_occurrence(view.cron, view.every_ms, services.clock.now_ms())
    await propose(services, ResumeSchedule(schedule_id, next_ms))
    return schedule_answer(find_schedule(services, schedule_id))


@routes.add(
    "POST",
    "/v1/schedules/{schedule_id}/trigger",
    "Run the job now, apart from the plan",
    body=Empty,
    body_optional=True,
    answer=Triggered,
    status=201,
    problems=("unknown_schedule",),
)
async def trigger_schedule(call: Call[Empty, Query]) -> web.Response:
    schedule_id = call.path("schedule_id")
    result = await propose(call.services, TriggerSchedule(schedule_id))
    assert isinstance(result, Fired)
    job_id = str(result.job_id)
    return respond(Triggered(job_id, schedule_id), 201, {"Location": f"/v1/jobs/{job_id}"})
