"""Typed views of what the API answers about schedules. Fields a server does not know yet have
defaults, fields this client does not know yet are ignored.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one run ended."""

    job_id: str = ""
    outcome: str = ""
    nominal_at: datetime | None = None
    finished_at: datetime | None = None


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """A recurring schedule: its definition as it was given, and how it stands."""

    schedule_id: str
    name: str = ""
    schedule: str | None = None
    every_seconds: float | None = None
    anchor: datetime | None = None
    at: list[datetime] | None = None
    any_of: list[dict[str, Any]] | None = None
    except_: list[dict[str, Any]] | None = msgspec.field(name="except", default=None)
    timezone: str = "UTC"
    dst: dict[str, str] | None = None
    calendars: list[str] | None = None
    on_holiday: str = "run"
    windows: list[dict[str, Any]] | None = None
    outside_window: str = "defer"
    blackouts: list[dict[str, Any]] | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    max_executions: int | None = None
    jitter_seconds: float = 0.0
    overlap: str = "skip"
    catchup: str = "one"
    catchup_window_seconds: float | None = None
    catchup_max_runs: int | None = None
    payload: Any = None
    queue: str = "default"
    priority: int = 5
    max_retries: int = 0
    retry: dict[str, Any] | None = None
    timeout_seconds: float | None = None
    queue_timeout_seconds: float | None = None
    total_timeout_seconds: float | None = None
    tags: list[str] = []
    status: str = "pending"
    ended_reason: str | None = None
    paused: bool = False
    note: str | None = None
    explanation: str = ""
    version: int = 0
    next_run: datetime | None = None
    next_nominal: datetime | None = None
    last_run: datetime | None = None
    last_job_id: str | None = None
    run_count: int = 0
    skipped_count: int = 0
    running: int = 0
    running_jobs: list[str] = []
    buffered: int = 0
    recent: list[Outcome] = []
    created_at: datetime | None = None


class FieldChange(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a definition, before and after."""

    field: str
    before: Any = None
    after: Any = None


class ScheduleChange(ScheduleView, frozen=True, kw_only=True):
    """A schedule after `put` or `change`. `outcome`: created, changed or unchanged."""

    outcome: str = ""
    changes: list[FieldChange] = []
    change_explanation: str = ""


class ScheduleResumed(ScheduleView, frozen=True, kw_only=True):
    """A schedule that goes on, and what its pause left out."""

    left_out: int = 0
    left_out_first: datetime | None = None
    left_out_last: datetime | None = None
    more: bool = False


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Why an occurrence is not where one would expect it."""

    code: str
    text: str = ""


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """One moment that a schedule names; `runs` False: `reason` takes it out."""

    utc: datetime
    local: str = ""
    nominal_at: datetime | None = None
    runs: bool = True
    reason: str | None = None
    note: str | None = None
    notes: list[Note] = []


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """The next runs. `complete`: nothing comes after these; if not, and there are fewer than asked
    for, the search was cut short: ask again with `after`."""

    timezone: str = "UTC"
    explanation: str = ""
    releases: str = ""
    next: list[Occurrence] = []
    complete: bool = True
    schedule_id: str | None = None


class ScheduleDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What a change would do to the next runs; complete up to `until`."""

    schedule_id: str
    changes: list[FieldChange] = []
    explanation_before: str = ""
    explanation_after: str = ""
    before: list[Occurrence] = []
    after: list[Occurrence] = []
    added: list[Occurrence] = []
    removed: list[Occurrence] = []
    until: datetime | None = None


class Backfill(msgspec.Struct, frozen=True, kw_only=True):
    """A range that is made up for, as it was asked for; of a dry run `backfill_id` is None."""

    backfill_id: int | None = None
    schedule_id: str = ""
    count: int = 0
    first: datetime | None = None
    last: datetime | None = None
    occurrences: list[datetime] = []
    overlap: str = ""
    per_minute: int = 0
    note: str | None = None


class BackfillProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a backfill has come."""

    backfill_id: int
    status: str = ""
    total: int = 0
    launched: int = 0
    skipped: int = 0
    waiting: int = 0
    overlap: str = ""
    per_minute: int = 0
    note: str | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None


class ScheduleEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to a schedule, `count` times in a row."""

    kind: str
    at: datetime | None = None
    reason: str | None = None
    nominal_at: datetime | None = None
    last_nominal_at: datetime | None = None
    count: int = 1
    job_id: str | None = None
    text: str = ""
