"""What answers about schedules look like. A definition reads like the request that makes it, so it
can be changed and sent back; absent values are null.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from cluster.api.answers import JobAnswer, JsonValue, RetryAnswer, Status, Time


class TriggerAnswer(Struct, omit_defaults=True):
    """One source of instants; the other ones are left out."""

    schedule: str | None = None
    every_seconds: float | None = None
    anchor: Time | None = None
    at: list[Time] | None = None


class DstAnswer(Struct):
    gap: str
    overlap: str


class WindowAnswer(Struct, omit_defaults=True):
    """`weekdays` left out: on all of them."""

    from_: str = field(name="from")
    to: str
    weekdays: list[str] | None = None


class ScheduleDefinition(Struct, kw_only=True):
    """All that a request can say about a schedule, but its id and whether it is paused."""

    name: str
    schedule: str | None
    every_seconds: float | None
    anchor: Time | None
    at: list[Time] | None
    any_of: list[TriggerAnswer] | None
    except_: list[TriggerAnswer] | None = field(name="except")
    timezone: str
    dst: DstAnswer | None
    calendars: list[str] | None
    on_holiday: str
    windows: list[WindowAnswer] | None
    outside_window: str
    blackouts: list[WindowAnswer] | None
    start_at: Time | None
    end_at: Time | None
    max_executions: int | None
    jitter_seconds: float
    overlap: str
    catchup: str
    catchup_window_seconds: float
    catchup_max_runs: int
    payload: JsonValue
    queue: str
    priority: int
    max_retries: int
    retry: RetryAnswer
    timeout_seconds: float
    queue_timeout_seconds: float | None
    total_timeout_seconds: float | None
    tags: tuple[str, ...]


class RecentAnswer(Struct):
    """How one of the last runs ended."""

    job_id: str
    outcome: Status
    nominal_at: Time | None
    finished_at: Time | None


class ScheduleAnswer(ScheduleDefinition, kw_only=True):
    """A recurring job. A schedule made by POST /v1/jobs answers to `job_id` as well.

    `next_nominal` is the planned moment, `next_run` the same with jitter. `version` grows with each
    change of the definition; it is the ETag, too."""

    schedule_id: str
    id: str
    job_id: str
    status: Literal["pending", "paused", "ended"]
    ended_reason: str | None
    paused: bool
    note: str | None
    explanation: Annotated[str, Meta(description="When it runs, as an English sentence.")]
    version: int
    next_run: Time | None
    next_nominal: Time | None
    last_run: Time | None
    last_job_id: str | None
    run_count: int
    skipped_count: int
    running: Annotated[int, Meta(description="Runs that are alive: pending, running, retrying.")]
    running_jobs: Annotated[list[str], Meta(description="The newest hundred of them.")]
    buffered: Annotated[int, Meta(description="Occurrences that wait for a run to end.")]
    recent: Annotated[
        list[RecentAnswer], Meta(description="The last 20 runs that ended, oldest first.")
    ]
    created_at: Time | None


class SchedulesPage(Struct):
    items: list[ScheduleAnswer]
    next_cursor: str | None


class FieldChange(Struct):
    field: str
    before: Any
    after: Any


class ScheduleChanged(ScheduleAnswer, kw_only=True):
    """A schedule after PUT or PATCH. `unchanged`: the definition was stored like this already."""

    outcome: Literal["created", "changed", "unchanged"]
    changes: list[FieldChange]
    change_explanation: str


class ScheduleResumed(ScheduleAnswer, kw_only=True):
    """What the pause left out; `more`: there were more than were counted."""

    left_out: int
    left_out_first: Time | None
    left_out_last: Time | None
    more: bool


class NoteAnswer(Struct):
    code: str
    text: str


class OccurrenceAnswer(Struct):
    """One moment that the definition names. `runs` false: something takes it out, `reason` says
    what. `utc` is when it runs, `nominal_at` what was planned before jitter."""

    utc: Time | None
    local: str
    nominal_at: Time | None
    runs: bool
    reason: str | None
    note: str | None
    notes: list[NoteAnswer]


class NextAnswer(Struct):
    """`complete`: nothing comes after these. If not, and there are fewer than asked for, the search
    was cut short: ask again with `after`."""

    schedule_id: str | None
    timezone: str
    explanation: str
    releases: Annotated[str, Meta(description="Of the zone data and the cron parser used.")]
    next: list[OccurrenceAnswer]
    complete: bool


class DiffAnswer(Struct):
    """What a changed definition would do to the next runs."""

    schedule_id: str
    changes: list[FieldChange]
    explanation_before: str
    explanation_after: str
    before: list[OccurrenceAnswer]
    after: list[OccurrenceAnswer]
    added: list[OccurrenceAnswer]
    removed: list[OccurrenceAnswer]
    until: Annotated[
        Time | None, Meta(description="Additions and removals are complete up to here.")
    ]


class Triggered(Struct):
    """`job_id` is null when the overlap policy made it wait or left it out."""

    job_id: str | None
    schedule_id: str
    outcome: Literal["started", "buffered", "skipped"]


class BackfillAnswer(Struct):
    """A range of occurrences that is made up for. `backfill_id` is null for a dry run."""

    backfill_id: int | None
    schedule_id: str
    count: int
    first: Time | None
    last: Time | None
    occurrences: list[Time]
    overlap: str
    per_minute: int
    note: str | None


class BackfillProgress(Struct):
    """`waiting` have not started yet, `skipped` the overlap policy left out."""

    backfill_id: int
    status: Literal["running", "finished"]
    total: int
    launched: int
    skipped: int
    waiting: int
    overlap: str
    per_minute: int
    note: str | None
    created_at: Time | None
    finished_at: Time | None


class BackfillsAnswer(Struct):
    items: list[BackfillProgress]


class RunsPage(Struct):
    items: list[JobAnswer]
    next_cursor: str | None


class ScheduleEventAnswer(Struct):
    """One thing that happened to a schedule; equal ones in a row are told once with a `count`."""

    at: Time | None
    kind: str
    reason: str | None
    nominal_at: Time | None
    last_nominal_at: Time | None
    count: int
    job_id: str | None
    text: str


class ScheduleTimeline(Struct):
    events: list[ScheduleEventAnswer]
    next_cursor: str | None
