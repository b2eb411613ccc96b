"""Schedules to answers: a plan back to the words of the request that made it, rows to documents."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import msgspec

from cluster.api.render import NULL, retry_answer, seconds_or_none, time_text
from cluster.api.schedule_answers import (
    DstAnswer,
    FieldChange,
    RecentAnswer,
    ScheduleAnswer,
    ScheduleChanged,
    ScheduleDefinition,
    ScheduleResumed,
    TriggerAnswer,
    WindowAnswer,
)
from cluster.api.schedule_intake import WEEKDAYS, is_drawn
from cluster.machine.commands import PutSchedule
from cluster.machine.lifecycle import STATUS
from cluster.machine.views import ScheduleView
from cluster.plan import Missed, Plan, Span, Trigger, Window
from cluster.policy.timing import explain

RUNNING_SHOWN_MAX = 100
EXPLANATIONS_CACHED = 4096
NO_TRIGGER = TriggerAnswer()


def definition_of(view: ScheduleView | PutSchedule) -> ScheduleDefinition:
    """What a request would say to make this schedule."""
    plan, spec = view.plan, view.spec
    assert plan is not None  # only commands of old logs have none
    flat = _trigger(plan.triggers[0]) if len(plan.triggers) == 1 else NO_TRIGGER
    return ScheduleDefinition(
        name=spec.name,
        schedule=flat.schedule,
        every_seconds=flat.every_seconds,
        anchor=flat.anchor,
        at=flat.at,
        any_of=[_trigger(each) for each in plan.triggers] if flat is NO_TRIGGER else None,
        except_=[_trigger(each) for each in plan.unless] or None,
        timezone=plan.timezone,
        dst=DstAnswer(plan.gap, plan.repeat) if plan.dst_explicit else None,
        calendars=list(plan.calendars) or None,
        on_holiday=plan.on_holiday,
        windows=[_window(each) for each in plan.windows] or None,
        outside_window=plan.outside,
        blackouts=_blackouts(plan),
        start_at=time_text(plan.start_ms),
        end_at=time_text(plan.end_ms),
        max_executions=view.max_executions or None,
        jitter_seconds=plan.jitter_ms / 1000,
        overlap=view.overlap,
        catchup=plan.catchup,
        catchup_window_seconds=plan.catchup_window_ms / 1000,
        catchup_max_runs=plan.catchup_max,
        payload=msgspec.Raw(view.payload) if view.payload else NULL,
        queue=spec.queue,
        priority=spec.priority,
        max_retries=spec.max_retries,
        retry=retry_answer(spec.retry),
        timeout_seconds=spec.timeout_ms / 1000,
        queue_timeout_seconds=seconds_or_none(view.queue_timeout_ms),
        total_timeout_seconds=seconds_or_none(view.total_timeout_ms),
        tags=spec.tags,
    )


def _trigger(trigger: Trigger) -> TriggerAnswer:
    if trigger.cron:
        return TriggerAnswer(schedule=trigger.cron)
    if trigger.every_ms:
        return TriggerAnswer(
            every_seconds=trigger.every_ms / 1000, anchor=_moment(trigger.anchor_ms)
        )
    return TriggerAnswer(at=[_moment(at_ms) for at_ms in trigger.at_ms])


def _moment(epoch_ms: int) -> str:
    """As `time_text`, for moments that are there even when they are 1970."""
    return time_text(epoch_ms) or "1970-01-01T00:00:00.000Z"


def _time_of_day(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, second = divmod(rest, 60)
    text = f"{hours:02d}:{minutes:02d}"
    return f"{text}:{second:02d}" if second else text


def _window(window: Window) -> WindowAnswer:
    days = [WEEKDAYS[day] for day in window.weekdays]
    return WindowAnswer(
        from_=_time_of_day(window.start_s), to=_time_of_day(window.end_s), weekdays=[*days] or None
    )


def _blackouts(plan: Plan) -> list[WindowAnswer] | None:
    return [_span(each) for each in plan.blackouts] + [
        _window(each) for each in plan.blackout_windows
    ] or None


def _span(span: Span) -> WindowAnswer:
    return WindowAnswer(from_=_moment(span.from_ms), to=_moment(span.until_ms))


def waiting(view: ScheduleView) -> int:
    """Occurrences and runs by hand that wait for a run to end; backfills tell their own."""
    return view.late + view.buffered + view.manual


@lru_cache(maxsize=EXPLANATIONS_CACHED)
def _explanation(plan: Plan, seed: str) -> str:
    return explain(plan, seed)


def explanation(plan: Plan, schedule_id: str) -> str:
    """The plan as a sentence. Like plans share one, as a list may show hundreds."""
    return _explanation(plan, schedule_id if is_drawn(plan) else "")


def schedule_answer(view: ScheduleView) -> ScheduleAnswer:
    return ScheduleAnswer(**_fields(view))


def _fields(view: ScheduleView) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(definition_of(view)),
        "schedule_id": view.id,
        "id": view.id,
        "job_id": view.id,
        "status": view.status,
        "ended_reason": view.ended or None,
        "paused": view.paused,
        "note": view.note or None,
        "explanation": explanation(view.plan, view.id),
        "version": view.version,
        "next_run": time_text(view.next_fire_ms),
        "next_nominal": time_text(view.next_nominal_ms) if view.next_fire_ms else None,
        "last_run": time_text(view.last_fire_ms),
        "last_job_id": str(view.last_job_id) if view.last_job_id else None,
        "run_count": view.run_count,
        "skipped_count": view.skipped_count,
        "running": len(view.running),
        "running_jobs": [str(job_id) for job_id in view.running[-RUNNING_SHOWN_MAX:]],
        "buffered": waiting(view),
        "recent": [
            RecentAnswer(
                str(each.job_id),
                STATUS[each.state],  # type: ignore[arg-type]
                time_text(each.nominal_ms),
                time_text(each.ended_ms),
            )
            for each in view.recent
        ],
        "created_at": time_text(view.created_ms),
    }


def changed_answer(
    outcome: Literal["created", "changed", "unchanged"],
    view: ScheduleView,
    before: ScheduleView | None,
) -> ScheduleChanged:
    """What a PUT or PATCH did, told for people, too."""
    changes = field_changes(definition_of(before), definition_of(view)) if before else []
    if before is None:
        text = f"the first run is {_next_text(view.next_fire_ms)}"
    else:
        text = change_text(changes, before.next_fire_ms, view.next_fire_ms)
    return ScheduleChanged(
        **_fields(view), outcome=outcome, changes=changes, change_explanation=text
    )


def resumed_answer(view: ScheduleView, missed: list[Missed]) -> ScheduleResumed:
    return ScheduleResumed(
        **_fields(view),
        left_out=sum(each.count for each in missed),
        left_out_first=time_text(min((each.first_ms for each in missed), default=0)),
        left_out_last=time_text(max((each.last_ms for each in missed), default=0)),
        more=any(each.reason == "uncounted" for each in missed),
    )


def field_changes(before: ScheduleDefinition, after: ScheduleDefinition) -> list[FieldChange]:
    """The fields that differ, in the order of the document."""
    old, new = (msgspec.json.decode(msgspec.json.encode(each)) for each in (before, after))
    return [FieldChange(name, old[name], new[name]) for name in new if old[name] != new[name]]


def change_text(changes: list[FieldChange], before_ms: int, after_ms: int) -> str:
    """What changed and what it does to the next run, as a sentence a person can check."""
    if not changes:
        return "nothing changed"
    told = "; ".join(f"{c.field}: {_short(c.before)} -> {_short(c.after)}" for c in changes)
    if before_ms == after_ms:
        return f"{told}; the next run stays {_next_text(after_ms)}"
    return f"{told}; the next run is {_next_text(after_ms)} instead of {_next_text(before_ms)}"


def _next_text(epoch_ms: int) -> str:
    return time_text(epoch_ms) or "none"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else text[:79] + "…"
