"""Flags that describe a schedule, for every verb that takes a definition, and what they say on the
wire. A file (TOML or JSON) says the same under the names of the API.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .options import UsageError, json_value, option

SCOPE = "schedule"
OVERLAPS = ("skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all")

# flag, what argparse is told, help
_TIMING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--cron", {"help": "cron line: five fields, six with seconds first, or @daily"}),
    ("--every", {"help": "seconds or 5m between runs"}),
    ("--anchor", {"help": "RFC 3339 time that --every counts from"}),
    ("--at", {"action": "append", "help": "RFC 3339 time to run once; may be repeated"}),
    ("--except", {"action": "append", "dest": "except_", "help": "cron line of runs to leave out"}),
    ("--timezone", {"help": "IANA name, e.g. Europe/Berlin (UTC)"}),
    ("--dst-gap", {"choices": ("run", "skip", "shift"), "help": "a local time that is left out"}),
    ("--dst-overlap", {"choices": ("first", "second", "both"), "help": "one that comes twice"}),
    ("--calendar", {"action": "append", "help": "calendar of holidays; may be repeated"}),
    ("--on-holiday", {"choices": ("run", "skip", "previous", "next"), "help": "on its days"}),
    ("--window", {"action": "append", "help": "22:00-06:00, mon,fri@08:00-18:00 or off_peak"}),
    ("--outside-window", {"choices": ("defer", "skip"), "help": "outside all windows (defer)"}),
    ("--blackout", {"action": "append", "help": "12:00-13:00 or <RFC 3339>/<RFC 3339>"}),
    ("--start-at", {"help": "RFC 3339 time before which nothing runs"}),
    ("--end-at", {"help": "RFC 3339 time from which on nothing runs"}),
    ("--max-executions", {"type": int, "help": "ends after so many runs"}),
    ("--jitter", {"help": "seconds or 5m: runs start up to this much later"}),
    ("--overlap", {"choices": OVERLAPS, "help": "while a run is alive (skip)"}),
    ("--catchup", {"choices": ("skip", "one", "all"), "help": "runs missed in an outage (one)"}),
    ("--catchup-window", {"help": "seconds or 5m: older ones are not made up for"}),
    ("--catchup-max-runs", {"type": int, "help": "at most so many are made up for (100)"}),
)
_JOB: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--payload", {"help": "JSON"}),
    ("--queue", {"help": "queue (default)"}),
    ("--priority", {"help": "1..10, or critical, high, normal, low"}),
    ("--max-retries", {"type": int, "help": "attempts after the first"}),
    ("--timeout", {"help": "seconds or 5m that one attempt may take"}),
    ("--tag", {"action": "append", "help": "may be repeated"}),
)
# Options of `schedule_fields` whose flags have their name.
_SAME = (
    *("every", "anchor", "at", "except_", "timezone", "on_holiday", "outside_window", "start_at"),
    *("end_at", "max_executions", "jitter", "overlap", "catchup", "catchup_window"),
    *("catchup_max_runs", "queue", "max_retries", "timeout", "note"),
)
OVERRIDES = (*_JOB[:-1], next(row for row in _TIMING if row[0] == "--overlap"))  # of one run


def add_timing(parser: argparse.ArgumentParser) -> None:
    """When it runs."""
    for flag, more in _TIMING:
        option(parser, flag, scope=SCOPE, **more)


def add_job(parser: argparse.ArgumentParser) -> None:
    """What it runs."""
    for flag, more in _JOB:
        option(parser, flag, scope=SCOPE, **more)


def add_start(parser: argparse.ArgumentParser) -> None:
    """How a new one starts."""
    option(parser, "--paused", scope=SCOPE, action="store_true", help="it waits for `resume`")
    option(parser, "--note", scope=SCOPE, help="why it is paused")


def add_file(parser: argparse.ArgumentParser, help: str) -> None:
    option(parser, "--file", scope=SCOPE, help=help)


def fields(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags say, under the names of the API. UsageError for what cannot be read."""
    from ..schedule_options import schedule_fields

    try:
        return schedule_fields(
            {name: convert(given) for name, convert, given in _given(args) if given is not None}
        )
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def _given(args: argparse.Namespace) -> list[tuple[str, Callable[[Any], Any], Any]]:
    def flag(name: str) -> Any:
        return getattr(args, name, None)

    return [
        *((name, _unchanged, flag(name)) for name in _SAME),
        ("schedule", _unchanged, flag("cron")),
        ("dst", _unchanged, _dst(flag("dst_gap"), flag("dst_overlap"))),
        ("calendars", _unchanged, flag("calendar")),
        ("windows", _windows, flag("window")),
        ("blackouts", _blackouts, flag("blackout")),
        ("payload", json_value, flag("payload")),
        ("priority", _number_or_name, flag("priority")),
        ("tags", _unchanged, flag("tag")),
        ("paused", _unchanged, flag("paused") or None),
    ]


def _unchanged(value: Any) -> Any:
    return value


def _dst(gap: str | None, overlap: str | None) -> dict[str, str] | None:
    given = {"gap": gap, "overlap": overlap}
    return {name: value for name, value in given.items() if value is not None} or None


def _number_or_name(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _windows(texts: list[str]) -> Any:
    if texts == ["off_peak"]:
        return "off_peak"
    return [_window(text) for text in texts]


def _window(text: str) -> dict[str, Any]:
    """`22:00-06:00`, before it perhaps the days on which it opens: `mon,fri@22:00-06:00`."""
    days, _, hours = text.rpartition("@")
    start, dash, end = hours.partition("-")
    if not (start and dash and end):
        raise UsageError(f"{text!r} is no window: write 22:00-06:00, mon,fri@22:00-06:00, off_peak")
    window: dict[str, Any] = {"from": start, "to": end}
    return {**window, "weekdays": days.split(",")} if days else window


def _blackouts(texts: list[str]) -> list[dict[str, Any]]:
    blackouts = []
    for text in texts:
        start, slash, end = text.partition("/")
        blackouts.append({"from": start, "to": end} if slash else _window(text))
    return blackouts


def read_file(path: str) -> list[dict[str, Any]]:
    """The schedules of a TOML or JSON file: one, or several under `schedules`."""
    import tomllib
    from pathlib import Path

    import msgspec

    try:
        raw = Path(path).read_bytes()
        if path.endswith(".toml"):
            content: Any = tomllib.loads(raw.decode())
        else:
            content = msgspec.json.decode(raw)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    several = content.get("schedules", [content]) if isinstance(content, dict) else content
    if not isinstance(several, list) or not all(isinstance(each, dict) for each in several):
        raise UsageError(f"{path} holds no schedules: write one, or several under `schedules`")
    return several
