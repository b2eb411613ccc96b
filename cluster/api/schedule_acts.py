"""Runs beside the plan: now and with other options, or the occurrences of a time range."""

from __future__ import annotations

from aiohttp import web
from msgspec import UNSET

from cluster.actors.services import Services
from cluster.api.errors import ProblemError
from cluster.api.intake import check_label, ms, payload_of, priority_of, refuse
from cluster.api.render import time_text
from cluster.api.routing import Call, Query, ReadQuery, Routes, respond
from cluster.api.schedule_answers import (
    BackfillAnswer,
    BackfillProgress,
    BackfillsAnswer,
    Triggered,
)
from cluster.api.schedule_intake import moment_ms
from cluster.api.schedule_models import (
    BACKFILL_RUNS_MAX,
    BackfillRequest,
    TriggerNowRequest,
)
from cluster.api.schedule_put import find, unknown_schedule
from cluster.api.schedule_render import waiting
from cluster.api.submission import propose
from cluster.machine import views
from cluster.machine.commands import JobChanges, StartBackfill, StopBackfill, TriggerSchedule
from cluster.machine.results import BackfillStarted, Fired
from cluster.machine.views import BackfillView

routes = Routes("schedules")


@routes.add(
    "POST",
    "/v1/schedules/{schedule_id}/trigger",
    "Run the job now, apart from the plan",
    body=TriggerNowRequest,
    body_optional=True,
    answer=Triggered,
    status=201,
    problems=("validation", "unknown_schedule"),
)
async def trigger_schedule(call: Call[TriggerNowRequest, Query]) -> web.Response:
    """Works on paused and ended schedules, too, and does not count as an execution."""
    schedule_id = call.path("schedule_id")
    waiting_before = waiting(find(call.services, schedule_id))
    result = await propose(
        call.services,
        TriggerSchedule(schedule_id, _changes(call.body, call.services), call.body.overlap),
    )
    assert isinstance(result, Fired)
    if result.job_id:
        job_id = str(result.job_id)
        headers = {"Location": f"/v1/jobs/{job_id}"}
        return respond(Triggered(job_id, schedule_id, "started"), 201, headers)
    view = views.schedule(call.services.raft.state, schedule_id)
    is_waiting = view is not None and waiting(view) > waiting_before
    return respond(Triggered(None, schedule_id, "buffered" if is_waiting else "skipped"), 201)


def _changes(request: TriggerNowRequest, services: Services) -> JobChanges:
    timeout_s = request.timeout_seconds
    return JobChanges(
        None if request.payload is UNSET else payload_of(request.payload, services.settings),
        None if request.queue is None else check_label(request.queue, "/queue"),
        None if request.priority is None else priority_of(request.priority),
        request.max_retries,
        None if timeout_s is None else ms(timeout_s),
    )


@routes.add(
    "POST",
    "/v1/schedules/{schedule_id}/backfill",
    "Run the occurrences of a time range",
    body=BackfillRequest,
    answer=BackfillAnswer,
    status=201,
    problems=("validation", "unknown_schedule"),
)
async def backfill_schedule(call: Call[BackfillRequest, Query]) -> web.Response:
    """They are those of the plan as it is now, whatever ran then. One starts when the one before
    has ended, or as `overlap` and `per_minute` say. A dry run answers 200 and only tells them."""
    services, request = call.services, call.body
    schedule_id = call.path("schedule_id")
    nominals = await _nominals(services, schedule_id, request)
    answer = BackfillAnswer(
        backfill_id=None,
        schedule_id=schedule_id,
        count=len(nominals),
        first=time_text(nominals[0]) if nominals else None,
        last=time_text(nominals[-1]) if nominals else None,
        occurrences=[time_text(at_ms) or "" for at_ms in nominals],
        overlap=request.overlap,
        per_minute=request.per_minute,
        note=request.note or None,
    )
    if request.dry_run:
        return respond(answer, 200)
    if not nominals:
        raise refuse("/from", "the schedule has no occurrence in this range")
    result = await propose(
        services,
        StartBackfill(schedule_id, nominals, request.overlap, request.per_minute, request.note),
    )
    assert isinstance(result, BackfillStarted)
    answer.backfill_id = result.backfill_id
    location = f"/v1/schedules/{schedule_id}/backfills/{result.backfill_id}"
    return respond(answer, 201, {"Location": location})


async def _nominals(services: Services, schedule_id: str, request: BackfillRequest) -> list[int]:
    view = find(services, schedule_id)
    from_ms, until_ms = moment_ms(request.from_, "/from"), moment_ms(request.to, "/to")
    if until_ms <= from_ms:
        raise refuse("/to", "this moment must come after from")
    if until_ms > services.clock.now_ms():
        raise refuse("/to", "this moment is still to come: the plan runs what is due then")
    found, complete = await services.planner.nominals(
        view.plan, view.id, from_ms, until_ms, BACKFILL_RUNS_MAX
    )
    if not complete:
        raise refuse(
            "/to",
            f"the range has more than {len(found)} occurrences that can be found at once: end it "
            f"at {time_text(found[-1] + 1) if found else 'an earlier moment'}",
        )
    return found


@routes.add(
    "GET",
    "/v1/schedules/{schedule_id}/backfills",
    "List backfills that go on, and the last ones that ended",
    answer=BackfillsAnswer,
    problems=("unknown_schedule",),
)
async def list_backfills(call: Call[None, ReadQuery]) -> BackfillsAnswer:
    schedule_id = call.path("schedule_id")
    found = views.backfills(call.services.raft.state, schedule_id)
    if found is None:
        raise unknown_schedule(schedule_id)
    return BackfillsAnswer([_progress(each) for each in found])


def _progress(view: BackfillView) -> BackfillProgress:
    return BackfillProgress(
        backfill_id=view.id,
        status="finished" if view.finished_ms else "running",
        total=view.total,
        launched=view.launched,
        skipped=view.skipped,
        waiting=view.waiting,
        overlap=view.overlap,
        per_minute=view.per_minute,
        note=view.note or None,
        created_at=time_text(view.created_ms),
        finished_at=time_text(view.finished_ms),
    )


@routes.add(
    "DELETE",
    "/v1/schedules/{schedule_id}/backfills/{backfill_id}",
    "Stop a backfill; what has started goes on",
    status=204,
    problems=("unknown_schedule", "unknown_backfill"),
)
async def stop_backfill(call: Call[None, Query]) -> None:
    schedule_id, text = call.path("schedule_id"), call.path("backfill_id")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ProblemError("unknown_backfill", f"no backfill has the number {text:.40}")
    await propose(call.services, StopBackfill(schedule_id, int(text)))
