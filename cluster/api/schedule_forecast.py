"""What a schedule will do: its next runs, those of one that does not exist yet, and what a change
would add and remove. Changes nothing.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Raw

from cluster.actors.services import Services
from cluster.api.codec import BodyDecoder
from cluster.api.intake import instant_ms
from cluster.api.render import time_text
from cluster.api.routing import Call, Query, Routes
from cluster.api.schedule_answers import (
    DiffAnswer,
    NextAnswer,
    NoteAnswer,
    OccurrenceAnswer,
)
from cluster.api.schedule_intake import plan_of, timing_problem
from cluster.api.schedule_models import DiffQuery, NextQuery, PreviewRequest, ScheduleRequest
from cluster.api.schedule_put import changed_request, checked_plan, draft, find, named
from cluster.api.schedule_render import definition_of, explanation, field_changes
from cluster.machine.commands import PutSchedule
from cluster.machine.views import ScheduleView
from cluster.plan import Plan
from cluster.policy.timing import (
    RELEASES,
    Occurrence,
    Omitted,
    TimingError,
    local_text,
)

routes = Routes("schedules")

_decode_fields: BodyDecoder[dict[str, Raw]] = BodyDecoder(dict[str, Raw], False)


@routes.add(
    "GET",
    "/v1/schedules/{schedule_id}/next",
    "Show the next runs, odd ones with their reason",
    query=NextQuery,
    answer=NextAnswer,
    problems=("unknown_schedule", "validation"),
)
async def next_runs(call: Call[None, NextQuery]) -> NextAnswer:
    """Reads the plan alone: a pause or a reached max_executions is not looked at."""
    view, query = find(call.services, call.path("schedule_id")), call.query
    after_ms = _after_ms(call.services, query.after)
    return await _next(
        call.services, view.plan, view.id, after_ms, query.count, query.omitted, exists=True
    )


@routes.add(
    "POST",
    "/v1/schedules/preview",
    "Show what a schedule would do, without making it",
    body=PreviewRequest,
    answer=NextAnswer,
    problems=("validation",),
)
async def preview_schedule(call: Call[PreviewRequest, Query]) -> NextAnswer:
    request, services = call.body, call.services
    now_ms = services.clock.now_ms()
    schedule_id = request.id or ""
    plan = await checked(services, plan_of(request, now_ms), request, schedule_id, now_ms)
    after_ms = _after_ms(services, request.after)
    return await _next(
        services, plan, schedule_id, after_ms, request.count, request.omitted, exists=False
    )


async def checked(
    services: Services, plan: Plan, request: ScheduleRequest, schedule_id: str, now_ms: int
) -> Plan:
    """The canonical plan. Raises ProblemError."""
    try:
        plan, _ = await checked_plan(services, plan, schedule_id, now_ms)
    except TimingError as error:
        raise timing_problem(error, request) from None
    return plan


async def _next(
    services: Services,
    plan: Plan,
    schedule_id: str,
    after_ms: int,
    count: int,
    omitted: bool,
    *,
    exists: bool,
) -> NextAnswer:
    found, complete = await services.planner.preview(plan, schedule_id, after_ms, count, omitted)
    return NextAnswer(
        schedule_id=schedule_id if exists else None,
        timezone=plan.timezone,
        explanation=explanation(plan, schedule_id),
        releases=RELEASES,
        next=[occurrence_answer(each, plan.timezone) for each in found],
        complete=complete,
    )


@routes.add(
    "POST",
    "/v1/schedules/{schedule_id}/diff",
    "Show what a change would do to the next runs",
    body=ScheduleRequest,
    decodes=False,
    query=DiffQuery,
    answer=DiffAnswer,
    problems=("unknown_schedule", "validation"),
)
async def diff_schedule(call: Call[None, DiffQuery]) -> DiffAnswer:
    """The body is what PATCH takes: the fields that would change, null for those that would go."""
    services = call.services
    view = find(services, call.path("schedule_id"))
    fields = _decode_fields.decode(call.raw, call.request.headers.get("Content-Type"))
    request = named(changed_request(view, fields), view.id)
    command = await draft(services, request, view.id, view)
    return await _diff(call, view, command)


async def _diff(
    call: Call[None, DiffQuery], view: ScheduleView, command: PutSchedule
) -> DiffAnswer:
    planner, query, plan = call.services.planner, call.query, command.plan
    assert plan is not None
    after_ms = _after_ms(call.services, query.after)
    before, is_old_all = await planner.preview(view.plan, view.id, after_ms, query.count)
    after, is_new_all = await planner.preview(plan, view.id, after_ms, query.count)
    until_ms = _compared_until_ms((before, is_old_all), (after, is_new_all))
    old = {each.nominal_ms for each in before}
    new = {each.nominal_ms for each in after}
    added = [o for o in after if o.nominal_ms not in old and o.nominal_ms <= until_ms]
    removed = [o for o in before if o.nominal_ms not in new and o.nominal_ms <= until_ms]
    return DiffAnswer(
        schedule_id=view.id,
        changes=field_changes(definition_of(view), definition_of(command)),
        explanation_before=explanation(view.plan, view.id),
        explanation_after=explanation(plan, view.id),
        before=[occurrence_answer(each, view.plan.timezone) for each in before],
        after=[occurrence_answer(each, plan.timezone) for each in after],
        added=[occurrence_answer(each, plan.timezone) for each in added],
        removed=[occurrence_answer(each, view.plan.timezone) for each in removed],
        until=time_text(until_ms),
    )


def _compared_until_ms(*parts: tuple[list[Occurrence | Omitted], bool]) -> int:
    """Up to where all lists are complete: where the first of those ends that go on."""
    ends = [found[-1].nominal_ms for found, is_all in parts if found and not is_all]
    if ends:
        return min(ends)
    return max((found[-1].nominal_ms for found, _ in parts if found), default=0)


def _after_ms(services: Services, after: datetime | None) -> int:
    return services.clock.now_ms() if after is None else max(instant_ms(after, "/after"), 0)


def occurrence_answer(found: Occurrence | Omitted, timezone: str) -> OccurrenceAnswer:
    if isinstance(found, Omitted):
        note = NoteAnswer(found.reason, found.text)
        return OccurrenceAnswer(
            utc=time_text(found.nominal_ms),
            local=local_text(found.nominal_ms, timezone),
            nominal_at=time_text(found.nominal_ms),
            runs=False,
            reason=found.reason,
            note=found.text,
            notes=[note],
        )
    return OccurrenceAnswer(
        utc=time_text(found.fire_ms),
        local=local_text(found.fire_ms, timezone),
        nominal_at=time_text(found.nominal_ms),
        runs=True,
        reason=None,
        note="; ".join(note.text for note in found.notes) or None,
        notes=[NoteAnswer(note.code, note.text) for note in found.notes],
    )
