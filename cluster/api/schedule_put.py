"""Storing schedules: created once, put as a whole, or changed in part, each against a version.

A definition that is stored already changes nothing, so code may declare its schedules at every
start. An update compares and sets on the version it was computed from, and starts over when another
one was faster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec
from aiohttp import web
from msgspec import Raw

from cluster.actors.services import Services
from cluster.api.codec import BodyDecoder, encode_json
from cluster.api.consistency import confirm
from cluster.api.errors import ProblemError, refusal
from cluster.api.intake import definition_payload, ms, refuse, spec_of
from cluster.api.schedule_intake import adopt_anchors, plan_of, refuse_past_times, timing_problem
from cluster.api.schedule_models import ScheduleRequest
from cluster.api.schedule_render import definition_of
from cluster.api.submission import propose
from cluster.machine import views
from cluster.machine.commands import PauseSchedule, PutSchedule, ResumeSchedule
from cluster.machine.results import Rejected, Result, Scheduled
from cluster.machine.views import ScheduleView
from cluster.plan import Missed, Plan
from cluster.policy.timing import Occurrence, TimingError, check
from cluster.policy.timing.catchup import may_omit

TRIES_MAX = 8  # of one update that others overtake
SOURCES = ("schedule", "every_seconds", "at", "any_of")
MERGED = ("dst", "retry")  # changed field by field; everything else is replaced as a whole

Outcome = Literal["created", "changed", "unchanged"]
_decode_request: BodyDecoder[ScheduleRequest] = BodyDecoder(ScheduleRequest, False)
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


class Condition(NamedTuple):
    """What the headers If-Match and If-None-Match ask for."""

    version: int = 0  # 0: any
    must_exist: bool = False
    must_be_new: bool = False

    def check(self, view: ScheduleView | None) -> None:
        """Raises version_mismatch."""
        if view is None:
            if self.must_exist:
                raise mismatch("there is no such schedule")
        elif self.must_be_new:
            raise mismatch("the schedule exists already")
        elif self.version and view.version != self.version:
            raise mismatch(f"the schedule is at version {view.version}")


def mismatch(detail: str) -> ProblemError:
    return ProblemError("version_mismatch", f"{detail}; nothing was changed")


def condition_of(request: web.Request) -> Condition:
    """Raises ProblemError for a header that is none."""
    must_be_new = request.headers.get("If-None-Match", "").strip() == "*"
    text = request.headers.get("If-Match")
    if text is None:
        return Condition(must_be_new=must_be_new)
    if text.strip() == "*":
        return Condition(must_exist=True, must_be_new=must_be_new)
    digits = text.strip().removeprefix("W/").strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits)):
        raise ProblemError("validation", 'If-Match takes the version of a schedule, like "3", or *')
    return Condition(int(digits), must_exist=True, must_be_new=must_be_new)


class Stored(NamedTuple):
    """A schedule as it is now, and as it was before an update."""

    outcome: Outcome
    view: ScheduleView
    before: ScheduleView | None


async def checked_plan(
    services: Services, plan: Plan, schedule_id: str, now_ms: int
) -> tuple[Plan, Occurrence | None]:
    """The plan as it is stored, and its first occurrence. Raises TimingError.

    That exceptions or windows leave nothing of a plan may take seconds to see, which the loop,
    where heartbeats leave, does not have."""
    planner = services.planner
    if may_omit(plan):
        await asyncio.to_thread(check, plan, schedule_id, now_ms, planner.calendars)
    return await planner.plan_put(plan, schedule_id, now_ms)


async def draft(
    services: Services,
    request: ScheduleRequest,
    schedule_id: str,
    stored: ScheduleView | None = None,
) -> PutSchedule:
    """The command that stores the schedule, its next occurrence computed. Raises ProblemError."""
    if request.note is not None and not request.paused:
        raise refuse("/note", "this says why it is paused: give paused, too")
    now_ms = services.clock.now_ms()
    plan = plan_of(request, now_ms)
    first: Occurrence | None = None
    if stored is not None:
        plan = adopt_anchors(plan, request, stored.plan)
        now_ms = max(now_ms, stored.accounted_ms)
    try:
        plan, first = await checked_plan(services, plan, schedule_id, now_ms)
    except TimingError as error:
        # What was stored while it still had a future may be declared again.
        if stored is None or plan != stored.plan:
            raise timing_problem(error, request) from None
    next_fire_ms = first.fire_ms if first else 0
    next_nominal_ms = first.nominal_ms if first else 0
    if stored is not None and plan == stored.plan and stored.next_nominal_ms:
        next_fire_ms, next_nominal_ms = stored.next_fire_ms, stored.next_nominal_ms
    queue_s, total_s = request.queue_timeout_seconds, request.total_timeout_seconds
    return PutSchedule(
        schedule_id,
        spec_of(request, services.settings),
        definition_payload(request, services.settings),
        "",
        0,
        next_fire_ms,
        stored is not None,
        ms(queue_s) if queue_s is not None else 0,
        ms(total_s) if total_s is not None else 0,
        plan=plan,
        overlap=request.overlap,
        max_executions=request.max_executions or 0,
        next_nominal_ms=next_nominal_ms,
        paused=bool(request.paused),
        note=request.note or "",
        expected_version=stored.version if stored is not None else 0,
    )


async def create(
    services: Services, request: ScheduleRequest, schedule_id: str
) -> ScheduleView | Rejected:
    """A new schedule, or CONFLICT. Raises ProblemError."""
    now_ms = services.clock.now_ms()
    refuse_past_times(plan_of(request, now_ms), request, now_ms)
    result: Result = await services.proposer.propose(await draft(services, request, schedule_id))
    if isinstance(result, Rejected):
        return result
    assert isinstance(result, Scheduled), result
    return find(services, result.schedule_id)


async def update(
    services: Services,
    schedule_id: str,
    build: Callable[[ScheduleView | None], ScheduleRequest],
    condition: Condition,
) -> Stored:
    """Make the stored schedule what `build` says of it. Raises ProblemError."""
    for _ in range(TRIES_MAX):
        before = views.schedule(services.raft.state, schedule_id)
        condition.check(before)
        request = build(before)
        command = await draft(services, request, schedule_id, before)
        if before is not None and same(before, command):
            await confirm(services)  # a leader that was deposed would know an old definition
            return await _paused(services, request, Stored("unchanged", before, before))
        result: Result = await services.proposer.propose(command)
        if isinstance(result, Scheduled):
            view = find(services, schedule_id)
            stored = Stored("created" if before is None else "changed", view, before)
            return await _paused(services, request, stored)
        assert isinstance(result, Rejected), result
        if result not in OVERTAKEN:
            raise refusal(result)
    raise ProblemError("conflict", "others keep changing this schedule; try again")


OVERTAKEN = (
    Rejected.CONFLICT,
    Rejected.STALE_VERSION,
    Rejected.UNKNOWN_SCHEDULE,
    Rejected.STALE_FIRE,
)


async def _paused(services: Services, request: ScheduleRequest, stored: Stored) -> Stored:
    """The pause that the request asks for; one that says nothing leaves it as it is."""
    view = stored.view
    if request.paused is None or stored.before is None or request.paused == view.paused:
        return stored
    if request.paused:
        await propose(services, PauseSchedule(view.id, request.note or ""))
    else:
        await resume(services, view)
    return Stored("changed", find(services, view.id), stored.before)


async def resume(services: Services, view: ScheduleView) -> list[Missed]:
    """Go on after now; what the pause left out is recorded, not run. Raises ProblemError."""
    if not view.paused:
        return []
    planner, now_ms = services.planner, services.clock.now_ms()
    try:
        decision = await planner.resume(view.plan, view.id, view.accounted_ms, now_ms)
    except TimingError as error:
        raise ProblemError("validation", f"change the schedule first: {error}") from None
    first = decision.next
    next_fire_ms, next_nominal_ms = (first.fire_ms, first.nominal_ms) if first else (0, 0)
    await propose(services, ResumeSchedule(view.id, next_fire_ms, next_nominal_ms, decision.missed))
    return decision.missed


def same(view: ScheduleView, command: PutSchedule) -> bool:
    """Whether the command would store what is stored."""
    return (
        view.spec == command.spec
        and view.payload == command.payload
        and view.plan == command.plan
        and view.overlap == command.overlap
        and view.max_executions == command.max_executions
        and view.queue_timeout_ms == command.queue_timeout_ms
        and view.total_timeout_ms == command.total_timeout_ms
    )


def find(services: Services, schedule_id: str) -> ScheduleView:
    """Raises unknown_schedule."""
    view = views.schedule(services.raft.state, schedule_id)
    if view is None:
        raise unknown_schedule(schedule_id)
    return view


def unknown_schedule(schedule_id: str) -> ProblemError:
    return ProblemError("unknown_schedule", f"no schedule has the id {schedule_id:.128}")


def named(request: ScheduleRequest, schedule_id: str) -> ScheduleRequest:
    """A request whose id, if it has one, is the one of its address."""
    if request.id is not None and request.id != schedule_id:
        raise refuse("/id", f"the address says {schedule_id!r:.130}: leave this out")
    return request


def changed_request(view: ScheduleView, fields: dict[str, Raw]) -> ScheduleRequest:
    """The stored definition with some fields changed; null takes a field back to its default."""
    stored = _decode_fields(encode_json(definition_of(view)))
    if any(name in fields and bytes(fields[name]) != b"null" for name in SOURCES):
        for name in (*SOURCES, "anchor"):
            stored.pop(name, None)  # the new source replaces the old one, whatever its kind
    if "calendars" in fields and "on_holiday" not in fields:
        stored.pop("on_holiday", None)  # what it is by default depends on whether there are any
    if "command" in fields:
        stored.pop("name", None)
        stored.pop("payload", None)
    for name, value in fields.items():
        if bytes(value) == b"null":
            stored.pop(name, None)
        elif name in MERGED and name in stored and bytes(stored[name]) != b"null":
            stored[name] = _merged(stored[name], value)
        else:
            stored[name] = value
    return _decode_request.decode_json(encode_json(stored))


def _merged(stored: Raw, change: Raw) -> Raw:
    try:
        fields = _decode_fields(change)
    except msgspec.DecodeError:
        return change  # no object: the type of the field will say so
    both = {**_decode_fields(stored), **fields}
    return Raw(encode_json({k: v for k, v in both.items() if bytes(v) != b"null"}))
