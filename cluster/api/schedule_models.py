"""What requests about schedules say. Limits of single values stand in the types; what several
fields say together is judged in `schedule_intake`, and by `policy.timing` what they mean in time.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from cluster.api.models import (
    SCHEDULE_ID,
    YEAR_SECONDS,
    CommandLine,
    Instant,
    Label,
    Payload,
    Priority,
    QueueName,
    QueueTimeout,
    Retries,
    RetryRequest,
    Tags,
    TaskName,
    Timeout,
    TotalTimeout,
)
from cluster.api.routing import Query, ReadQuery

TRIGGERS_MAX = 20
TIMES_MAX = 1_000
WINDOWS_MAX = 32
BLACKOUTS_MAX = 256
CALENDARS_MAX = 16
CATCHUP_RUNS_MAX = 1_000
NOTE_CHARACTERS_MAX = 1_000
COUNT_DEFAULT, COUNT_MAX = 10, 500
BACKFILL_RUNS_MAX = 10_000
DAY_SECONDS = 86_400.0

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Overlap = Literal[
    "skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all"
]
Catchup = Literal["skip", "one", "all"]
OverlapPolicy = Annotated[
    Overlap,
    Meta(
        description="When a run is due while one of this schedule is alive. skip: leave it out. "
        "buffer_one, buffer_all: let one, or up to 1,000, wait. cancel_other: ask the old one to "
        "stop and wait for it. terminate_other: stop it at once. allow_all: run both."
    ),
]
Expression = Annotated[
    str,
    Meta(
        description="Cron: five fields, or six with seconds first; names, @daily, L, LW, W, #, H."
    ),
]
Every = Annotated[float, Meta(ge=0.1, le=10 * YEAR_SECONDS)]
Anchor = Annotated[
    Instant | None,
    Meta(description="An interval counts from here; left out, from when it was first stored."),
]
Times = Annotated[list[Instant], Meta(min_length=1, max_length=TIMES_MAX)]
Note = Annotated[str, Meta(max_length=NOTE_CHARACTERS_MAX)]
TimeOfDay = Annotated[
    str, Meta(description="Local time of day: 22:00 or 22:00:30; 24:00 is the end of the day.")
]
ScheduleId = Annotated[
    str,
    Meta(
        pattern=SCHEDULE_ID,
        description="Chosen by the client; letters, digits and . _ : -, no bare number.",
    ),
]


class TriggerRequest(Struct, forbid_unknown_fields=True):
    """One source of instants: exactly one of `schedule`, `every_seconds` and `at`."""

    schedule: Expression | None = None
    every_seconds: Every | None = None
    anchor: Anchor = None
    at: Times | None = None


Triggers = Annotated[list[TriggerRequest], Meta(min_length=1, max_length=TRIGGERS_MAX)]


class DstRequest(Struct, forbid_unknown_fields=True):
    """What happens where clocks change; left out, cron jobs do what Debian's cron does."""

    gap: Annotated[
        Literal["run", "skip", "shift"],
        Meta(description="A local time that is left out: run at its end, skip, or shift by it."),
    ] = "run"
    overlap: Annotated[
        Literal["first", "second", "both"],
        Meta(description="A local time that comes twice: which of both runs."),
    ] = "first"


class WindowRequest(Struct, forbid_unknown_fields=True):
    """A part of the day; `to` at or before `from` is on the next day. `weekdays` are those of the
    day on which it opens."""

    from_: TimeOfDay = field(name="from")
    to: TimeOfDay
    weekdays: Annotated[list[Weekday], Meta(min_length=1, max_length=7)] | None = None


class BlackoutRequest(Struct, forbid_unknown_fields=True):
    """Nothing runs from `from` until `to`: two moments with an offset, or two times of day."""

    from_: str = field(name="from")
    to: str
    weekdays: Annotated[list[Weekday], Meta(min_length=1, max_length=7)] | None = None


class ScheduleRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """A recurring job: exactly one of `schedule`, `every_seconds`, `at` and `any_of` says when."""

    name: TaskName | UnsetType = UNSET
    id: ScheduleId | None = None
    schedule: Expression | None = None
    every_seconds: Every | None = None
    anchor: Anchor = None
    at: Times | None = None
    any_of: Triggers | None = None
    except_: Triggers | None = field(name="except", default=None)
    timezone: Annotated[str, Meta(description="IANA name, such as Europe/Berlin.")] = "UTC"
    dst: DstRequest | None = None
    calendars: Annotated[list[Label], Meta(max_length=CALENDARS_MAX)] | None = None
    on_holiday: Annotated[
        Literal["run", "skip", "previous", "next"] | None,
        Meta(description="On a day of a named calendar; skip, when calendars are named."),
    ] = None
    windows: Annotated[
        Literal["off_peak"]
        | Annotated[list[WindowRequest], Meta(min_length=1, max_length=WINDOWS_MAX)]
        | None,
        Meta(description="Runs start only in these; off_peak is 22:00 to 06:00 local time."),
    ] = None
    outside_window: Annotated[
        Literal["defer", "skip"],
        Meta(description="Outside all windows: wait for the next opening (as one), or leave out."),
    ] = "defer"
    blackouts: Annotated[list[BlackoutRequest], Meta(max_length=BLACKOUTS_MAX)] | None = None
    start_at: Instant | None = None
    end_at: Annotated[Instant | None, Meta(description="Nothing runs from here on.")] = None
    max_executions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    jitter_seconds: Annotated[
        Annotated[float, Meta(ge=0, le=DAY_SECONDS)],
        Meta(description="Runs start up to this much later, each by its own fixed amount."),
    ] = 0.0
    overlap: OverlapPolicy = "skip"
    catchup: Annotated[
        Catchup,
        Meta(
            description="Runs that were missed while nobody could start them: skip, one for all "
            "of them, or all. Each one left out is an event of the timeline."
        ),
    ] = "one"
    catchup_window_seconds: Annotated[float, Meta(gt=0, le=10 * YEAR_SECONDS)] = YEAR_SECONDS
    catchup_max_runs: Annotated[int, Meta(ge=1, le=CATCHUP_RUNS_MAX)] = 100
    paused: Annotated[
        bool | None, Meta(description="Left out: a new one runs, a stored one stays as it is.")
    ] = None
    note: Annotated[Note | None, Meta(description="Why it is paused.")] = None
    payload: Payload = UNSET
    queue: QueueName = "default"
    priority: Priority = 5
    command: CommandLine | None = None
    max_retries: Retries = 3
    retry: RetryRequest | None = None
    timeout_seconds: Timeout | None = None
    queue_timeout_seconds: QueueTimeout | None = None
    total_timeout_seconds: TotalTimeout | None = None
    tags: Tags | None = None


class PreviewRequest(ScheduleRequest, forbid_unknown_fields=True, kw_only=True):
    """A schedule that need not exist; the fields of its job may be left out."""

    after: Instant | None = None
    count: Annotated[int, Meta(ge=1, le=COUNT_MAX)] = COUNT_DEFAULT
    omitted: bool = False


class PauseRequest(Struct, forbid_unknown_fields=True):
    note: Note = ""


class TriggerNowRequest(Struct, forbid_unknown_fields=True):
    """What this one run has different; `overlap` says what becomes of runs that are alive."""

    payload: Payload = UNSET
    queue: QueueName | None = None
    priority: Priority | None = None
    max_retries: Retries | None = None
    timeout_seconds: Timeout | None = None
    overlap: OverlapPolicy = "allow_all"


class BackfillRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """The occurrences from `from` (included) until `to` (excluded), one after the other."""

    from_: Instant = field(name="from")
    to: Instant
    overlap: OverlapPolicy = "buffer_all"
    per_minute: Annotated[
        int, Meta(ge=0, le=60_000, description="At most so many starts a minute; 0: no limit.")
    ] = 0
    note: Note = ""
    dry_run: bool = False


class NextQuery(ReadQuery, forbid_unknown_fields=True, frozen=True):
    """`omitted`: also those that calendars, windows, blackouts or clock changes take out."""

    count: Annotated[int, Meta(ge=1, le=COUNT_MAX)] = COUNT_DEFAULT
    after: Instant | None = None
    omitted: bool = False


class DiffQuery(Query, forbid_unknown_fields=True, frozen=True):
    count: Annotated[int, Meta(ge=1, le=COUNT_MAX)] = COUNT_DEFAULT
    after: Instant | None = None


class RunsQuery(ReadQuery, forbid_unknown_fields=True, frozen=True):
    """`nominal`: only runs of the occurrence planned for this moment."""

    nominal: Instant | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: Annotated[str, Meta(max_length=256)] = ""


class TimelineQuery(ReadQuery, forbid_unknown_fields=True, frozen=True):
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: Annotated[str, Meta(max_length=256)] = ""
