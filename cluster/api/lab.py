"""The lab's unversioned routes: a thin translation of /v1. Any job type runs as task `simulate`.

Adds no behaviour of its own; whatever is submitted here is an ordinary job or schedule.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from cluster.actors.services import Services
from cluster.api import schedules
from cluster.api.answers import StatsAnswer, Time, WorkerAnswer
from cluster.api.codec import encode_json
from cluster.api.errors import ProblemError
from cluster.api.intake import definition_payload, group_of, refuse
from cluster.api.lookup import find_job, page, parse_job_id
from cluster.api.models import Delay, JobRequest, Label, Priority, Retries
from cluster.api.render import time_text, worker_text
from cluster.api.routing import Call, Query, ReadQuery, Routes, respond
from cluster.api.schedule_models import ScheduleRequest
from cluster.api.stats import stats_of
from cluster.api.submission import (
    IDEMPOTENCY_KEY,
    REPLAYED,
    ids_of,
    request_key,
    require_room,
    submit,
)
from cluster.api.workers import worker_answer
from cluster.machine import lifecycle, views
from cluster.machine.views import JobFilter, JobView, ScheduleView

routes = Routes("lab")

LIST_MAX = 500
TASK = "simulate"


class LabJobRequest(Struct, forbid_unknown_fields=True):
    """A job of the lab. `cron_expression` makes it recurring."""

    job_type: Label
    execution_time_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 100
    fail_rate: Annotated[float, Meta(ge=0, le=1)] = 0.0
    delay_seconds: Delay | None = None
    cron_expression: str | None = None
    priority: Priority = 5
    max_retries: Retries = 3
    payload: Annotated[Raw | UnsetType, Meta(description="Any JSON value, kept with the job.")] = (
        UNSET
    )


class LabPayload(Struct):
    """What `simulate` is given, and what is shown again."""

    job_type: str = ""
    execution_time_ms: Any = None
    fail_rate: Any = None
    payload: Raw | UnsetType = UNSET


class LabJob(Struct):
    """A job as the lab's exercises read it."""

    job_id: str
    job_type: str
    status: str
    priority: int
    attempt: int
    max_retries: int
    worker_id: str | None
    created_at: Time | None
    scheduled_at: Time | None
    next_run: Time | None
    started_at: Time | None
    finished_at: Time | None
    error_message: str | None
    execution_time_ms: Any
    fail_rate: Any
    cron_expression: str | None
    run_count: int | None
    last_job_id: str | None


class LabQuery(ReadQuery, forbid_unknown_fields=True, frozen=True):
    status: Literal["", "pending", "running", "completed", "failed", "cancelled", "skipped"] = ""
    limit: Annotated[int, Meta(ge=1, le=LIST_MAX)] = LIST_MAX


_decode_payload = msgspec.json.Decoder(LabPayload).decode


def _parts(payload: bytes, name: str) -> LabPayload:
    """What was simulated; other jobs show their own name as type."""
    try:
        parts = _decode_payload(payload)
    except (msgspec.DecodeError, RecursionError):
        return LabPayload(name)
    parts.job_type = parts.job_type or name
    return parts


def _job(view: JobView) -> LabJob:
    parts = _parts(view.payload, view.spec.name)
    waits = view.state in (lifecycle.SCHEDULED, lifecycle.RETRYING)
    due = time_text(view.run_at_ms)
    return LabJob(
        job_id=str(view.id),
        job_type=parts.job_type,
        status=lifecycle.STATUS[view.state],
        priority=view.spec.priority,
        attempt=view.attempt,
        max_retries=view.spec.max_retries,
        worker_id=worker_text(view.worker_id),
        created_at=time_text(view.created_ms),
        scheduled_at=due,
        next_run=due if waits else None,
        started_at=time_text(view.started_ms),
        finished_at=time_text(view.finished_ms),
        error_message=view.error_message or None,
        execution_time_ms=parts.execution_time_ms,
        fail_rate=parts.fail_rate,
        cron_expression=None,
        run_count=None,
        last_job_id=None,
    )


def _recurring(view: ScheduleView) -> LabJob:
    parts = _parts(view.payload, view.spec.name)
    return LabJob(
        job_id=view.id,
        job_type=parts.job_type,
        status="paused" if view.paused else "pending",
        priority=view.spec.priority,
        attempt=0,
        max_retries=view.spec.max_retries,
        worker_id=None,
        created_at=time_text(view.created_ms),
        scheduled_at=time_text(view.next_fire_ms),
        next_run=time_text(view.next_fire_ms),
        started_at=time_text(view.last_fire_ms),
        finished_at=None,
        error_message=None,
        execution_time_ms=parts.execution_time_ms,
        fail_rate=parts.fail_rate,
        cron_expression=view.plan.triggers[0].cron or None,
        run_count=view.run_count,
        last_job_id=str(view.last_job_id) if view.last_job_id else None,
    )


def _payload(request: LabJobRequest) -> Raw:
    return Raw(
        encode_json(
            LabPayload(
                request.job_type, request.execution_time_ms, request.fail_rate, request.payload
            )
        )
    )


@routes.add(
    "POST",
    "/jobs",
    "Submit a simulated job",
    body=LabJobRequest,
    answer=LabJob,
    status=201,
    headers=(IDEMPOTENCY_KEY,),
    problems=("validation", "queue_full"),
)
async def submit_lab_job(call: Call[LabJobRequest, Query]) -> web.Response:
    request, services = call.body, call.services
    key = request_key(call.request, call.raw, services)
    if request.cron_expression is not None:
        return await _submit_recurring(call, request)
    job = JobRequest(
        name=TASK,
        payload=_payload(request),
        priority=request.priority,
        delay_seconds=request.delay_seconds,
        max_retries=request.max_retries,
    )
    group = group_of(job, services.clock.now_ms(), services.settings)
    group.payloads.append(definition_payload(job, services.settings))
    require_room(services, group.spec.queue, 1)
    result = await submit(services, [group], key)
    view = await find_job(services, ids_of(result)[0])
    headers = {"Location": f"/jobs/{view.id}", **(REPLAYED if result.replayed else {})}
    return respond(_job(view), 201, headers)


async def _submit_recurring(
    call: Call[LabJobRequest, Query], request: LabJobRequest
) -> web.Response:
    if request.delay_seconds is not None:
        raise refuse("/delay_seconds", "give delay_seconds or cron_expression, not both")
    schedule = ScheduleRequest(
        name=TASK,
        schedule=request.cron_expression,
        payload=_payload(request),
        priority=request.priority,
        max_retries=request.max_retries,
    )
    key = request_key(call.request, call.raw, call.services)
    try:
        view, replayed = await schedules.put(call.services, schedule, key)
    except ProblemError as problem:
        if problem.pointer == "/schedule":
            problem.pointer = "/cron_expression"
        raise
    headers = {"Location": f"/jobs/{view.id}", **(REPLAYED if replayed else {})}
    return respond(_recurring(view), 201, headers)


@routes.add(
    "GET", "/jobs", "List jobs, newest first", query=LabQuery, answer=list[LabJob], past=True
)
async def list_lab_jobs(call: Call[None, LabQuery]) -> list[LabJob]:
    wanted = JobFilter(call.query.status)
    found, _ = await page(call.services, wanted, 0, call.query.limit)
    return [_job(view) for view in found]


@routes.add(
    "GET", "/jobs/{job_id}", "Show a job or schedule", answer=LabJob, problems=("unknown_job",)
)
async def get_lab_job(call: Call[None, Query]) -> LabJob:
    job_id = call.path("job_id")
    view = views.schedule(call.services.raft.state, job_id)
    if view is not None:
        return _recurring(view)
    return _job(await find_job(call.services, parse_job_id(job_id)))


@routes.add("GET", "/stats", "Count jobs, queues and workers", answer=StatsAnswer)
async def get_lab_stats(call: Call[None, Query]) -> StatsAnswer:
    return stats_of(call.services)


@routes.add("GET", "/workers", "List workers", answer=list[WorkerAnswer])
async def list_lab_workers(call: Call[None, Query]) -> list[WorkerAnswer]:
    services: Services = call.services
    found = views.workers(services.raft.state, 0, LIST_MAX)
    return [worker_answer(services, view) for view in found]
