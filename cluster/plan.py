"""When a schedule fires, as data: what the API reads, the log carries and `policy/timing` computes.

Stands below everything, because the machine stores a plan that it never looks into. Whether a plan
makes sense is decided by `policy.timing.check`, once, before it is committed. Everything here is
frozen; fields are appended with defaults, never reordered: old logs must replay.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

# The decoder holds these bounds, so that no sum of a few of them leaves the int64 of wheel and
# snapshot: a command with a larger number is refused alone and changes nothing.
TIME_MS_MAX = 1 << 53  # the year 287,396
COUNT_MAX = (1 << 31) - 1
Ms = Annotated[int, Meta(ge=0, le=TIME_MS_MAX)]
Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]

CATCHUP_WINDOW_MS_DEFAULT = 31_536_000_000  # a year
CATCHUP_MAX_DEFAULT = 100


class Trigger(Struct, array_like=True, frozen=True, gc=False):
    """One source of instants: an expression, an interval or a list of times; exactly one is set.

    An interval names anchor, anchor + every, anchor + 2 every ...: nothing before its anchor."""

    cron: str = ""
    every_ms: Ms = 0
    anchor_ms: Ms = 0
    at_ms: tuple[Ms, ...] = ()


class Window(Struct, array_like=True, frozen=True, gc=False):
    """A part of the local day, [start, end) in seconds; an end at or before the start is tomorrow.

    `weekdays` (0 is Monday; none means all) are those of the day on which it opens."""

    start_s: Count
    end_s: Count
    weekdays: tuple[Count, ...] = ()


class Span(Struct, array_like=True, frozen=True, gc=False):
    """A stretch of absolute time, [from, until)."""

    from_ms: Ms
    until_ms: Ms


class Plan(Struct, array_like=True, frozen=True, gc=False, cache_hash=True):
    """All of what decides when a schedule fires, except the days inside the calendars it names.

    What the triggers name together, without what `unless` names; read in `timezone`; moved or
    dropped by calendars, windows and blackouts; within [start, end); spread by the jitter."""

    triggers: tuple[Trigger, ...]
    unless: tuple[Trigger, ...] = ()
    timezone: str = "UTC"
    gap: str = "run"  # or "skip", "shift": a local time that the zone leaves out
    repeat: str = "first"  # or "second", "both": a local time that the zone has twice
    dst_explicit: bool = False  # False: jobs with a wildcard follow real time instead
    calendars: tuple[str, ...] = ()
    on_holiday: str = "run"  # or "skip", "previous", "next"
    windows: tuple[Window, ...] = ()
    outside: str = "defer"  # or "skip": what happens outside all windows
    blackouts: tuple[Span, ...] = ()
    blackout_windows: tuple[Window, ...] = ()
    start_ms: Ms = 0
    end_ms: Ms = 0  # 0: none
    jitter_ms: Ms = 0
    catchup: str = "one"  # or "skip", "all": runs missed while nobody could launch them
    catchup_window_ms: Ms = CATCHUP_WINDOW_MS_DEFAULT
    catchup_max: Count = CATCHUP_MAX_DEFAULT


class Missed(Struct, array_like=True, frozen=True, gc=False):
    """`count` occurrences in a row that are not launched, for one reason. Nominal times."""

    reason: str
    first_ms: Ms
    last_ms: Ms
    count: Count = 1
