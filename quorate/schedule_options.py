"""Builds the body of one schedule request from Python arguments, so that every way of saying it
(client, decorators, command line) is the same on the wire.

Checks only what cannot be expressed on the wire; what makes sense is the server's to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time
from typing import Any, Literal

from .durations import Duration, to_rfc3339, to_seconds
from .requests import JobOptions, option_fields

Overlap = Literal[
    "skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all"
]
Moment = datetime | str
TimeOfDay = time | str
Window = tuple[TimeOfDay, TimeOfDay] | Mapping[str, Any]
Blackout = tuple[Moment | time, Moment | time] | Mapping[str, Any]
Trigger = str | Mapping[str, Any]


class TimingOptions(JobOptions, total=False):
    """What may be said about a schedule besides its task and its trigger.

    `except_` names what is taken out again: cron lines, or triggers as mappings. `windows` are
    "off_peak" or pairs of local times; `blackouts` pairs of moments or of local times. `dst` is
    {"gap": run|skip|shift, "overlap": first|second|both}."""

    except_: Sequence[Trigger]
    timezone: str
    dst: Mapping[str, str]
    calendars: Sequence[str]
    on_holiday: Literal["run", "skip", "previous", "next"]
    windows: Literal["off_peak"] | Sequence[Window]
    outside_window: Literal["defer", "skip"]
    blackouts: Sequence[Blackout]
    start_at: Moment
    end_at: Moment
    max_executions: int
    jitter: Duration
    overlap: Overlap
    catchup: Literal["skip", "one", "all"]
    catchup_window: Duration
    catchup_max_runs: int


class ScheduleOptions(TimingOptions, total=False):
    """TimingOptions plus whether it starts paused, and why."""

    anchor: Moment
    paused: bool
    note: str


class ScheduleChanges(ScheduleOptions, total=False):
    """What `change` and `diff` take: None goes back to the default."""

    name: str
    schedule: str
    every: Duration
    at: Sequence[Moment]
    any_of: Sequence[Trigger]
    payload: Any


def trigger_fields(trigger: Trigger) -> dict[str, Any]:
    """A cron line, or a mapping with `schedule`, `every` (with `anchor`) or `at`."""
    given: Mapping[str, Any] = {"schedule": trigger} if isinstance(trigger, str) else trigger
    return {_name(name): _value(name, value) for name, value in given.items()}


def schedule_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options under their names on the wire; those that are None are left out. TypeError for an
    unknown one."""
    return change_fields({name: value for name, value in options.items() if value is not None})


def change_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """As `schedule_fields`, but None stays and means the default."""
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if name not in _KNOWN:
            fields.update(_job_fields(name, value))
        else:
            fields[_name(name)] = None if value is None else _value(name, value)
    return fields


def _job_fields(name: str, value: Any) -> dict[str, Any]:
    if value is not None:
        return option_fields({name: value})
    return {_JOB_SECONDS.get(name, name): None}


def _name(option: str) -> str:
    return _RENAMED.get(option, option)


def _value(option: str, value: Any) -> Any:
    convert = _CONVERTED.get(option)
    return value if convert is None else convert(value)


def _triggers(values: Sequence[Trigger]) -> list[dict[str, Any]]:
    if isinstance(values, (str, Mapping)):
        raise TypeError("any_of and except_ take several triggers: write a list")
    return [trigger_fields(value) for value in values]


def _moments(values: Sequence[Moment] | Moment) -> list[str]:
    several = [values] if isinstance(values, (str, datetime)) else values
    return [to_rfc3339(value) for value in several]


def _edge(value: Any) -> Any:
    """One end of a window or blackout."""
    if isinstance(value, datetime):
        return to_rfc3339(value)
    if isinstance(value, time):
        return value.strftime("%H:%M:%S")
    return value


def _ranges(values: Any) -> Any:
    if isinstance(values, str):
        return values
    ranges = []
    for value in values:
        if isinstance(value, Mapping):
            ranges.append({name: _edge(edge) for name, edge in value.items()})
        else:
            start, end = value
            ranges.append({"from": _edge(start), "to": _edge(end)})
    return ranges


def _texts(values: Sequence[str]) -> list[str]:
    if isinstance(values, str):
        raise TypeError(f"calendars takes several names: write [{values!r}]")
    return list(values)


_RENAMED = {
    "every": "every_seconds",
    "except_": "except",
    "jitter": "jitter_seconds",
    "catchup_window": "catchup_window_seconds",
}
_JOB_SECONDS = {
    "timeout": "timeout_seconds",
    "total_timeout": "total_timeout_seconds",
    "queue_timeout": "queue_timeout_seconds",
}
_CONVERTED: dict[str, Callable[[Any], Any]] = {
    "every": to_seconds,
    "anchor": to_rfc3339,
    "at": _moments,
    "any_of": _triggers,
    "except_": _triggers,
    "calendars": _texts,
    "windows": _ranges,
    "blackouts": _ranges,
    "start_at": to_rfc3339,
    "end_at": to_rfc3339,
    "jitter": to_seconds,
    "catchup_window": to_seconds,
}
_KNOWN = {
    *_CONVERTED,
    *("name", "id", "schedule", "every_seconds", "timezone", "dst", "on_holiday", "outside_window"),
    *("max_executions", "overlap", "catchup", "catchup_max_runs", "paused", "note", "payload"),
}
