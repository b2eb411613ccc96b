"""A schedule's request to a plan, as data. What the plan means in time is judged by
`policy.timing`, whose refusals get their place in the request here. Reads no clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from cluster.api.errors import ProblemError
from cluster.api.intake import instant_ms, ms, refuse
from cluster.api.models import JobRequest
from cluster.api.schedule_models import (
    BlackoutRequest,
    DstRequest,
    ScheduleRequest,
    TriggerRequest,
    Weekday,
    WindowRequest,
)
from cluster.plan import Plan, Span, Trigger, Window
from cluster.policy.timing import TimingError

WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
OFF_PEAK = Window(22 * 3600, 6 * 3600)
DAY_S = 86_400

_SOURCES = ("schedule", "every_seconds", "at", "any_of")
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


def plan_of(request: ScheduleRequest, now_ms: int) -> Plan:
    """The plan, still unchecked. An interval without an anchor is anchored at `now_ms`.

    Raises ProblemError for what no plan can say."""
    triggers = _triggers(request, now_ms)
    unless = request.except_ or ()
    start_ms, end_ms = _bounds(request)
    calendars = tuple(request.calendars or ())
    dst = request.dst or DstRequest()
    spans, blackout_windows = _blackouts(request.blackouts or ())
    return Plan(
        triggers=triggers,
        unless=tuple(
            _trigger(each, f"/except/{place}", now_ms) for place, each in enumerate(unless)
        ),
        timezone=request.timezone,
        gap=dst.gap,
        repeat=dst.overlap,
        dst_explicit=request.dst is not None,
        calendars=calendars,
        on_holiday=_on_holiday(request, calendars),
        windows=_windows(request),
        outside=request.outside_window,
        blackouts=spans,
        blackout_windows=blackout_windows,
        start_ms=start_ms,
        end_ms=end_ms,
        jitter_ms=ms(request.jitter_seconds),
        catchup=request.catchup,
        catchup_window_ms=ms(request.catchup_window_seconds),
        catchup_max=request.catchup_max_runs,
    )


def _triggers(request: ScheduleRequest, now_ms: int) -> tuple[Trigger, ...]:
    given = [name for name in _SOURCES if getattr(request, name) is not None]
    if len(given) != 1:
        pointer = f"/{given[1]}" if given else "/schedule"
        raise refuse(pointer, "give exactly one of schedule, every_seconds, at and any_of")
    if request.any_of is None:
        flat = TriggerRequest(request.schedule, request.every_seconds, request.anchor, request.at)
        return (_trigger(flat, "", now_ms),)
    if request.anchor is not None:
        raise refuse("/anchor", "write the anchor beside its every_seconds, inside any_of")
    return tuple(
        _trigger(each, f"/any_of/{place}", now_ms) for place, each in enumerate(request.any_of)
    )


def _trigger(request: TriggerRequest, place: str, now_ms: int) -> Trigger:
    given = [
        name for name in ("schedule", "every_seconds", "at") if getattr(request, name) is not None
    ]
    if len(given) != 1:
        raise refuse(place, "give exactly one of schedule, every_seconds and at")
    if request.anchor is not None and request.every_seconds is None:
        raise refuse(f"{place}/anchor", "only every_seconds has an anchor")
    if request.schedule is not None:
        return Trigger(cron=request.schedule)
    if request.every_seconds is not None:
        anchor_ms = (
            now_ms if request.anchor is None else moment_ms(request.anchor, f"{place}/anchor")
        )
        return Trigger(every_ms=ms(request.every_seconds), anchor_ms=anchor_ms)
    times = [moment_ms(time, f"{place}/at/{n}") for n, time in enumerate(request.at or ())]
    return Trigger(at_ms=tuple(sorted(set(times))))


def moment_ms(moment: datetime, pointer: str) -> int:
    """Epoch milliseconds; the replicated time has none before 1970."""
    epoch_ms = instant_ms(moment, pointer)
    if epoch_ms < 0:
        raise refuse(pointer, "this moment lies before 1970")
    return epoch_ms


def _bounds(request: ScheduleRequest) -> tuple[int, int]:
    start_ms = moment_ms(request.start_at, "/start_at") if request.start_at is not None else 0
    end_ms = moment_ms(request.end_at, "/end_at") if request.end_at is not None else 0
    if request.end_at is not None and end_ms <= start_ms:
        raise refuse("/end_at", "this moment must come after start_at")
    return start_ms, end_ms


def _on_holiday(request: ScheduleRequest, calendars: tuple[str, ...]) -> str:
    if request.on_holiday is None:
        return "skip" if calendars else "run"
    if request.on_holiday != "run" and not calendars:
        raise refuse("/on_holiday", "this needs calendars: name at least one")
    return request.on_holiday


def _windows(request: ScheduleRequest) -> tuple[Window, ...]:
    if request.windows is None:
        return ()
    if isinstance(request.windows, str):
        return (OFF_PEAK,)
    return tuple(_window(each, f"/windows/{n}") for n, each in enumerate(request.windows))


def _window(request: WindowRequest | BlackoutRequest, place: str) -> Window:
    start_s = time_of_day_s(request.from_, f"{place}/from")
    end_s = time_of_day_s(request.to, f"{place}/to")
    if start_s == DAY_S:
        raise refuse(f"{place}/from", "a day starts at 00:00; 24:00 can only be an end")
    if start_s == end_s:
        raise refuse(
            f"{place}/to",
            f"from {request.from_} to {request.to} is no time at all: write 00:00 to 24:00 for "
            "the whole day",
        )
    weekdays = sorted({WEEKDAYS.index(day) for day in request.weekdays or ()})
    return Window(start_s, end_s, tuple(weekdays))


def time_of_day_s(text: str, pointer: str) -> int:
    """Seconds since local midnight. Raises ProblemError."""
    match = _TIME_OF_DAY.fullmatch(text.strip()) if text.isascii() else None
    hour, minute, second = (int(part or 0) for part in match.groups()) if match else (99, 0, 0)
    total_s = hour * 3600 + minute * 60 + second
    if minute > 59 or second > 59 or total_s > DAY_S:
        raise refuse(pointer, f"{text!r:.40} is no time of day: write one like 22:00, up to 24:00")
    return total_s


def _blackouts(
    requests: Sequence[BlackoutRequest],
) -> tuple[tuple[Span, ...], tuple[Window, ...]]:
    spans: list[Span] = []
    windows: list[Window] = []
    for number, request in enumerate(requests):
        place = f"/blackouts/{number}"
        if _TIME_OF_DAY.fullmatch(request.from_.strip()):
            windows.append(_window(request, place))
        else:
            spans.append(_span(request, place))
    return tuple(spans), tuple(windows)


def _span(request: BlackoutRequest, place: str) -> Span:
    if request.weekdays is not None:
        raise refuse(f"{place}/weekdays", "only a blackout by time of day has weekdays")
    from_ms = _parsed_ms(request.from_, f"{place}/from")
    until_ms = _parsed_ms(request.to, f"{place}/to")
    if until_ms <= from_ms:
        raise refuse(f"{place}/to", "this moment must come after from")
    return Span(from_ms, until_ms)


def _parsed_ms(text: str, pointer: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise refuse(
            pointer,
            f"{text!r:.40} is neither a moment like 2026-12-24T00:00:00Z nor a time of day "
            "like 12:00",
        )
    return moment_ms(moment, pointer)


def refuse_past_times(plan: Plan, request: ScheduleRequest, now_ms: int) -> None:
    """A one-shot that is over is a typing error in something new; in something that is declared
    again and again it is history."""
    lists = [("", request.at)]
    lists += [(f"/any_of/{n}", each.at) for n, each in enumerate(request.any_of or ())]
    for place, times in lists:
        for number, time in enumerate(times or ()):
            pointer = f"{place}/at/{number}"
            if instant_ms(time, pointer) <= now_ms:
                raise refuse(pointer, "this moment has passed")
    if plan.end_ms and plan.end_ms <= now_ms:
        raise refuse("/end_at", "this moment has passed")


def adopt_anchors(plan: Plan, request: ScheduleRequest, stored: Plan) -> Plan:
    """The plan with the stored anchor wherever the request leaves it to us.

    So a definition that is declared again is the same one, and its interval goes on in step."""
    triggers = list(plan.triggers)
    requests = request.any_of or [TriggerRequest(every_seconds=request.every_seconds)]
    if request.any_of is None and request.anchor is not None:
        return plan
    if len(stored.triggers) != len(triggers):
        return plan
    for place, (each, old) in enumerate(zip(requests, stored.triggers, strict=True)):
        is_free = each.every_seconds is not None and each.anchor is None
        if is_free and old.every_ms == triggers[place].every_ms:
            triggers[place] = old
    return replace(plan, triggers=tuple(triggers))


def needs_final_id(plan: Plan) -> bool:
    """Whether the schedule's id decides when it runs, so that it must be known beforehand."""
    return is_drawn(plan) or plan.jitter_ms > 0


def is_drawn(plan: Plan) -> bool:
    """Whether an expression may have an `H`, which depends on the id."""
    return any("h" in trigger.cron.lower() for trigger in (*plan.triggers, *plan.unless))


def schedule_request(request: JobRequest) -> ScheduleRequest:
    """The schedule that a job request with `schedule` asks for."""
    only_jobs = {
        "delay_seconds": request.delay_seconds,
        "run_at": request.run_at,
        "expires_at": request.expires_at,
        "unique_key": request.unique_key,
        "unique_ttl_seconds": request.unique_ttl_seconds,
    }
    for field, value in only_jobs.items():
        if value is not None:
            raise refuse(f"/{field}", f"a schedule has no {field}: leave out one of both")
    return ScheduleRequest(
        name=request.name,
        schedule=request.schedule,
        timezone="UTC" if request.timezone is None else request.timezone,
        payload=request.payload,
        queue=request.queue,
        priority=request.priority,
        command=request.command,
        max_retries=request.max_retries,
        retry=request.retry,
        timeout_seconds=request.timeout_seconds,
        queue_timeout_seconds=request.queue_timeout_seconds,
        total_timeout_seconds=request.total_timeout_seconds,
        tags=request.tags,
    )


def timing_problem(error: TimingError, request: ScheduleRequest) -> ProblemError:
    """The refusal of a plan, at its place in the request: a lone trigger is taken to be flat."""
    field, alone = error.field, request.any_of is not None and len(request.any_of) == 1
    if alone and field.split("/")[1] in ("schedule", "every_seconds", "at"):
        field = f"/any_of/0{field}"
    return refuse(field, str(error))
