"""An English sentence for a plan, so that a wrong expression is seen before it fires."""

from __future__ import annotations

from datetime import timedelta

from cluster.plan import Plan, Trigger, Window
from cluster.policy.timing.days import DAY_S, Days
from cluster.policy.timing.hits import clock_text
from cluster.policy.timing.parse import Expression, parse
from cluster.policy.timing.zones import local_text

TIMES_SPELLED_MAX = 6
WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS = (
    *("", "January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
ORDINALS = ("last", "first", "second", "third", "fourth", "fifth")
HOLIDAYS = {
    "run": "on holidays too",
    "skip": "not on holidays",
    "previous": "on holidays the working day before",
    "next": "on holidays the working day after",
}


def explain(plan: Plan, schedule_id: str = "") -> str:
    """What the plan says. Without the id, `H` is shown as it would be for a schedule of no name."""
    parts = [_listed([_trigger(trigger, plan, schedule_id) for trigger in plan.triggers])]
    if plan.unless:
        parts.append(
            "except " + _listed([_trigger(trigger, plan, schedule_id) for trigger in plan.unless])
        )
    if plan.calendars and plan.on_holiday != "run":
        parts.append(f"{HOLIDAYS[plan.on_holiday]} of {_listed(list(plan.calendars))}")
    if plan.windows:
        outside = "waiting for it otherwise" if plan.outside == "defer" else "else skipped"
        parts.append(f"only {_windows(plan.windows)}, {outside}")
    if plan.blackout_windows:
        parts.append(f"never {_windows(plan.blackout_windows)}")
    if plan.blackouts:
        parts.append(
            f"with {len(plan.blackouts)} blackouts" if plan.blackouts[1:] else "with a blackout"
        )
    if plan.start_ms:
        parts.append(f"from {local_text(plan.start_ms, plan.timezone)}")
    if plan.end_ms:
        parts.append(f"until {local_text(plan.end_ms, plan.timezone)}")
    if plan.jitter_ms:
        parts.append(f"up to {_duration(plan.jitter_ms)} later, by jitter")
    sentence = ", ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]} ({plan.timezone})."


def _trigger(trigger: Trigger, plan: Plan, schedule_id: str) -> str:
    if trigger.cron:
        return _cron(parse(trigger.cron, schedule_id))
    if trigger.every_ms:
        return f"every {_duration(trigger.every_ms).removeprefix('1 ')}"
    times = [f"at {local_text(at_ms, plan.timezone)}" for at_ms in trigger.at_ms[:3]]
    more = len(trigger.at_ms) - len(times)
    return _listed([*times, f"at {more} more times"] if more else times)


def _cron(expression: Expression) -> str:
    days, months = _days(expression.days), expression.days.months
    in_months = f"in {_ranges(months, MONTHS)}" if len(months) < 12 else ""
    words = [_times(expression), days, in_months]
    return " ".join(word for word in words if word)


def _times(expression: Expression) -> str:
    seconds, minutes, hours = expression.seconds, expression.minutes, expression.hours
    if len(seconds) * len(minutes) * len(hours) <= TIMES_SPELLED_MAX and len(hours) < 24:
        times = [h * 3600 + m * 60 + s for h in hours for m in minutes for s in seconds]
        return f"at {_listed([clock_text(at_s) for at_s in times])}"
    if len(seconds) > 1:
        text = _steps(seconds, 60, "second")
        text += "" if len(minutes) == 60 else f" of {_numbers('minute', minutes)}"
    elif seconds != (0,):
        text = f"at second {seconds[0]} of " + _steps(minutes, 60, "minute").removeprefix("at ")
    else:
        text = _steps(minutes, 60, "minute")
    if len(hours) == 24:
        return text if "every" in text else f"{text} of every hour"
    return f"{text} from {_ranges(hours, tuple(f'{h:02}:00' for h in range(24)), ':59')}"


def _days(days: Days) -> str:
    monthly = []
    if 0 < len(days.days) < 31:
        monthly.append(f"on {_numbers('day', days.days)} of the month")
    monthly += [
        "on the last day of the month" if not back else f"{back} days before the end of the month"
        for back in days.from_end
    ]
    monthly += [f"on the working day nearest to day {day} of the month" for day in days.nearest]
    if days.last_working:
        monthly.append("on the last working day of the month")
    weekly = []
    if 0 < len(days.weekdays) < 7:
        weekly.append(f"on {_ranges(_monday_first(days.weekdays), (*WEEKDAYS, 'Sunday'))}")
    weekly += [f"on the {ORDINALS[which]} {WEEKDAYS[day]} of the month" for day, which in days.nth]
    if len(days.days) == 31 or len(days.weekdays) == 7:
        if not days.both:
            return "every day"
        return _listed(monthly, "or") or _listed(weekly, "or")
    joint = "that is also" if days.both else "or"
    return f" {joint} ".join([_listed(monthly, "or"), _listed(weekly, "or")])


def _monday_first(weekdays: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(day or 7 for day in weekdays))


def _steps(numbers: tuple[int, ...], count: int, unit: str) -> str:
    if len(numbers) == count:
        return f"every {unit}"
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 0
    if step and numbers == tuple(range(0, count, step)) and count % step == 0:
        return f"every {step} {unit}s"
    return f"at {_numbers(unit, numbers)}"


def _numbers(unit: str, numbers: tuple[int, ...]) -> str:
    plural = "s" if len(numbers) > 1 else ""
    return f"{unit}{plural} {_ranges(numbers, tuple(map(str, range(60))))}"


def _ranges(numbers: tuple[int, ...], names: tuple[str, ...], closing: str = "") -> str:
    """Runs of three and more become `a to b`; `closing` replaces the end of what is a range."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts: list[str] = []
    for run in runs:
        last = names[run[-1]].removesuffix(":00") + closing if closing else names[run[-1]]
        if len(run) > 2 or closing:
            texts.append(f"{names[run[0]]} to {last}")
        else:
            texts += [names[number] for number in run]
    return _listed(texts)


def _windows(windows: tuple[Window, ...]) -> str:
    return _listed([_window(window) for window in windows], "or")


def _window(window: Window) -> str:
    text = f"between {clock_text(window.start_s)} and {clock_text(window.end_s % DAY_S)}"
    if not window.weekdays:
        return text
    names = (*WEEKDAYS[1:], WEEKDAYS[0])
    return f"{text} on {_ranges(window.weekdays, names)}"


def _duration(length_ms: int) -> str:
    for unit, unit_ms in (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000)):
        if length_ms % unit_ms == 0:
            return f"1 {unit}" if length_ms == unit_ms else f"{length_ms // unit_ms} {unit}s"
    seconds = timedelta(milliseconds=length_ms).total_seconds()
    return "1 second" if seconds == 1 else f"{seconds:g} seconds"


def _listed(texts: list[str], word: str = "and") -> str:
    if len(texts) < 2:
        return texts[0] if texts else ""
    return f"{', '.join(texts[:-1])} {word} {texts[-1]}"
