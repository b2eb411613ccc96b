"""Refuses plans that cannot work, before they are committed, with the field and the reason."""

from __future__ import annotations

from msgspec import structs

from cluster.plan import Plan, Span, Trigger, Window
from cluster.policy.timing.calendars import ON_HOLIDAY, Calendars
from cluster.policy.timing.days import DAY_S
from cluster.policy.timing.dst import GAPS, REPEATS
from cluster.policy.timing.errors import GaveUp, TimingError
from cluster.policy.timing.fields import tidy
from cluster.policy.timing.parse import parse
from cluster.policy.timing.walk import next_occurrence
from cluster.policy.timing.windows import OUTSIDE
from cluster.policy.timing.zones import END_S, zone

CATCHUPS = ("skip", "one", "all")
TRIGGERS_MAX = 32
TIMES_MAX = 1_000
WINDOWS_MAX = 32
SPANS_MAX = 256
CALENDARS_MAX = 16
CATCHUP_RUNS_MAX = 10_000
JITTER_MS_MAX = 86_400_000
ALL_WEEKDAYS = tuple(range(7))


def check(plan: Plan, schedule_id: str, now_ms: int, calendars: Calendars) -> Plan:
    """The plan as it is stored. Raises TimingError."""
    zone(plan.timezone)
    _choices(plan)
    plan = structs.replace(
        plan,
        triggers=_triggers(plan.triggers, schedule_id, "/any_of"),
        unless=_triggers(plan.unless, schedule_id, "/except"),
        calendars=_calendars(plan.calendars, calendars),
        windows=_windows(plan.windows, "/windows"),
        blackout_windows=_windows(plan.blackout_windows, "/blackouts"),
        blackouts=_spans(plan.blackouts),
    )
    if not plan.triggers:
        raise TimingError("nothing says when it fires: give a schedule, every_seconds or at")
    _bounds(plan)
    try:
        first = next_occurrence(plan, schedule_id, now_ms, calendars)
    except GaveUp as gave_up:
        raise _too_sparse(plan, gave_up) from None
    if first is None:
        raise _never(plan, now_ms)
    return plan


def _choices(plan: Plan) -> None:
    for value, choices, field in (
        (plan.gap, GAPS, "/dst/gap"),
        (plan.repeat, REPEATS, "/dst/overlap"),
        (plan.on_holiday, ON_HOLIDAY, "/on_holiday"),
        (plan.outside, OUTSIDE, "/outside_window"),
        (plan.catchup, CATCHUPS, "/catchup"),
    ):
        if value not in choices:
            name = field.rsplit("/", 1)[-1]
            raise TimingError(f"{name} cannot be {value!r}: use {', '.join(choices)}", field)
    if plan.on_holiday != "run" and not plan.calendars:
        raise TimingError(
            f"on_holiday is {plan.on_holiday!r} and there is no calendar: name one in calendars",
            "/on_holiday",
        )


def _bounds(plan: Plan) -> None:
    if plan.end_ms and plan.end_ms <= plan.start_ms:
        raise TimingError("end_at is not after start_at: no time is left between them", "/end_at")
    if plan.jitter_ms > JITTER_MS_MAX:
        raise TimingError("jitter_seconds can be at most 86400, a day", "/jitter_seconds")
    if not 1 <= plan.catchup_max <= CATCHUP_RUNS_MAX:
        raise TimingError(
            f"catchup_max_runs can be 1 to {CATCHUP_RUNS_MAX}: for none use catchup 'skip'",
            "/catchup_max_runs",
        )


def _triggers(triggers: tuple[Trigger, ...], schedule_id: str, field: str) -> tuple[Trigger, ...]:
    if len(triggers) > TRIGGERS_MAX:
        raise TimingError(f"at most {TRIGGERS_MAX} triggers fit into one schedule", field)
    alone = field == "/any_of" and len(triggers) == 1
    return tuple(
        _trigger(trigger, schedule_id, "" if alone else f"{field}/{place}")
        for place, trigger in enumerate(triggers)
    )


def _trigger(trigger: Trigger, schedule_id: str, field: str) -> Trigger:
    if (trigger.cron != "") + (trigger.every_ms > 0) + (trigger.at_ms != ()) != 1:
        raise TimingError(
            "exactly one of schedule, every_seconds and at says when it fires", field or "/schedule"
        )
    if trigger.cron:
        try:
            parse(trigger.cron, schedule_id)
        except TimingError as error:
            raise TimingError(str(error), f"{field}/schedule") from None
        return Trigger(cron=tidy(trigger.cron))
    if len(trigger.at_ms) > TIMES_MAX:
        raise TimingError(f"at most {TIMES_MAX} times fit into one schedule", f"{field}/at")
    if any(at_ms >= END_S * 1000 for at_ms in trigger.at_ms):
        raise TimingError("a time is beyond the calendar: use one before 9990", f"{field}/at")
    return structs.replace(trigger, at_ms=tuple(sorted(set(trigger.at_ms))))


def _calendars(names: tuple[str, ...], calendars: Calendars) -> tuple[str, ...]:
    if len(names) > CALENDARS_MAX:
        raise TimingError(f"at most {CALENDARS_MAX} calendars can be named", "/calendars")
    for place, name in enumerate(names):
        if name not in calendars:
            known = ", ".join(sorted(calendars)[:5]) or "none is there yet"
            raise TimingError(
                f"there is no calendar {name!r} ({known}): create it first",
                f"/calendars/{place}",
            )
    return tuple(dict.fromkeys(names))


def _windows(windows: tuple[Window, ...], field: str) -> tuple[Window, ...]:
    if len(windows) > WINDOWS_MAX:
        raise TimingError(f"at most {WINDOWS_MAX} windows fit into one schedule", field)
    return tuple(_window(window, f"{field}/{place}") for place, window in enumerate(windows))


def _window(window: Window, field: str) -> Window:
    if window.start_s >= DAY_S:
        raise TimingError("a window opens between 00:00 and 23:59", f"{field}/from")
    if window.end_s > DAY_S:
        raise TimingError("a window closes between 00:00 and 24:00", f"{field}/to")
    if window.start_s == window.end_s:
        raise TimingError(
            "this window never opens, its ends are the same: for all day write 00:00 to 24:00",
            f"{field}/to",
        )
    if any(day not in ALL_WEEKDAYS for day in window.weekdays):
        raise TimingError("a weekday is one of mon tue wed thu fri sat sun", f"{field}/weekdays")
    weekdays = tuple(sorted(set(window.weekdays)))
    return structs.replace(window, weekdays=() if weekdays == ALL_WEEKDAYS else weekdays)


def _spans(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """Sorted, and overlapping ones joined."""
    if len(spans) > SPANS_MAX:
        raise TimingError(f"at most {SPANS_MAX} blackouts fit into one schedule", "/blackouts")
    joined: list[Span] = []
    for place, span in enumerate(spans):
        if span.until_ms <= span.from_ms:
            raise TimingError("this blackout ends before it starts", f"/blackouts/{place}/to")
    for span in sorted(spans, key=lambda span: span.from_ms):
        if joined and span.from_ms <= joined[-1].until_ms:
            joined[-1] = Span(joined[-1].from_ms, max(joined[-1].until_ms, span.until_ms))
        else:
            joined.append(span)
    return tuple(joined)


def _never(plan: Plan, now_ms: int) -> TimingError:
    if plan.end_ms and plan.end_ms <= now_ms:
        return TimingError("end_at has passed: nothing would ever fire", "/end_at")
    if all(trigger.at_ms and trigger.at_ms[-1] <= now_ms for trigger in plan.triggers):
        field = "/at" if len(plan.triggers) == 1 else "/any_of"
        return TimingError("every time in it has passed: nothing would ever fire", field)
    there = _takers(plan)
    if not there:
        return TimingError("it never fires again: write an expression that does")
    names = " and ".join(name for _, name in there)
    return TimingError(f"it never fires: {names} leave nothing of it, widen them", there[0][0])


def _too_sparse(plan: Plan, gave_up: GaveUp) -> TimingError:
    there = _takers(plan)
    names = " and ".join(name for _, name in there)
    return TimingError(
        f"it never fires, or hardly ever: {gave_up}, {names} leave nothing of them; "
        "write an expression of what does run",
        there[0][0] if there else "/schedule",
    )


def _takers(plan: Plan) -> list[tuple[str, str]]:
    """Field and name of everything that may take instants out."""
    reasons = [
        ("/except", "the exceptions", plan.unless),
        ("/on_holiday", "the calendars", plan.calendars if plan.on_holiday != "run" else ()),
        ("/windows", "the windows", plan.windows if plan.outside == "skip" else ()),
        ("/blackouts", "the blackouts", plan.blackouts or plan.blackout_windows),
        ("/end_at", "end_at", plan.end_ms),
    ]
    return [(field, name) for field, name, value in reasons if value]
