"""What a snapshot consists of: length-prefixed MessagePack records `[section, body]`.

Jobs are stored by columns, a thousand to a record, and a column of one value as that value: like
jobs come in batches, so most columns are one number. The types say what a reader may rely on;
fields are appended with defaults, never reordered.
"""

from __future__ import annotations

from msgspec import Struct

from cluster.machine.levels import BASE_LEVEL
from cluster.machine.model import Attempt, JobSpec, ScheduleEvent, WorkerSpec
from cluster.machine.tables import ManualRun, Totals
from cluster.plan import Plan

FORMAT = 1
SECTIONS = (
    "header", "queues", "specs", "blocks", "jobs", "dead", "workers", "calendars", "schedules",
    "requests", "uniques", "end",
)  # fmt: skip

Column = int | list[int]


class Header(Struct, array_like=True, gc=False):
    format: int
    now_ms: int
    epoch: int
    digest: int
    next_job_id: int
    next_worker_id: int
    next_schedule_id: int
    totals: Totals
    releases: str = ""
    missed: dict[str, int] = {}
    level: int = BASE_LEVEL


class ExtraRow(Struct, array_like=True, gc=False):
    """`JobExtra`; whether a timer waits is all that has to be known of it."""

    unique_key: str
    unique_ttl_ms: int
    schedule_id: str
    nominal_ms: int
    expires_at_ms: int
    deadline_ms: int
    attempts: list[Attempt] | None
    expire_timer: bool
    deadline_timer: bool
    stop_by_ms: int = 0


class JobColumns(Struct, array_like=True, gc=False):
    """`specs` are positions in the section `specs`; `timers` due times, 0 for none; `extras` go
    with the rows at the positions `extra_at`."""

    ids: list[int]
    specs: Column
    payloads: list[bytes]
    states: Column
    created_ms: Column
    run_at_ms: Column
    attempts: Column
    failures: Column
    workers: Column
    started_ms: Column
    timers: Column
    extra_at: list[int]
    extras: list[ExtraRow]
    apart: bool = False  # they stand in no order, see `JobTable`


class BlockEntry(Struct, array_like=True, gc=False):
    """`Block`: `ends` are its offsets, four bytes each, the lowest first, or the length of every
    payload; `gone` is a byte per job, empty if all are there. What is gone has an empty payload.
    Its timers follow from the rest."""

    id: int
    spec: int
    payloads: bytes
    ends: int | bytes
    gone: bytes
    state: int
    created_ms: int
    run_at_ms: int
    expires_at_ms: int = 0
    deadline_ms: int = 0


class DeadColumns(Struct, array_like=True, gc=False):
    """Dead letters bring their specs along, as the live jobs' may be forgotten."""

    specs: list[JobSpec]
    jobs: JobColumns
    finished_ms: list[int]
    error_types: list[str]
    error_messages: list[str]
    logs: list[str]


class WorkerEntry(Struct, array_like=True, gc=False):
    id: int
    spec: WorkerSpec
    registered_ms: int
    running: list[int]
    draining: bool


class CalendarEntry(Struct, array_like=True, gc=False):
    name: str
    days: list[int]
    labels: tuple[str, ...]
    description: str
    source: str
    version: int
    changed_ms: int


class BackfillEntry(Struct, array_like=True, gc=False):
    id: int
    overlap: str
    per_minute: int
    note: str
    created_ms: int
    total: int
    waiting: list[int]
    buffer: list[int]
    launched: int
    skipped: int
    finished_ms: int
    next_ms: int


class ScheduleEntry(Struct, array_like=True, gc=False):
    id: str
    spec: JobSpec
    payload: bytes
    cron: str
    every_ms: int
    next_fire_ms: int
    created_ms: int
    queue_timeout_ms: int
    total_timeout_ms: int
    paused: bool
    note: str
    last_fire_ms: int
    last_job_id: int
    run_count: int
    skipped_count: int
    timer: bool
    plan: Plan | None = None  # None: written by the first release
    overlap: str = "allow_all"
    max_executions: int = 0
    executions: int = 0
    version: int = 1
    changed_ms: int = 0
    ended: str = ""
    next_nominal_ms: int = 0
    last_nominal_ms: int = 0
    accounted_ms: int = 0
    next_backfill_id: int = 1
    recent: list[int] = []
    events: list[ScheduleEvent] = []
    late: list[int] = []
    buffer: list[int] = []
    manual: list[ManualRun] = []
    backfills: list[BackfillEntry] = []


class RequestEntry(Struct, array_like=True, gc=False):
    key: str
    fingerprint: int
    first: int
    count: int
    ids: list[int] | None
    expires_ms: int


class UniqueEntry(Struct, array_like=True, gc=False):
    key: str
    job_id: int
    expires_ms: int


BODIES: dict[str, type] = {
    "header": Header,
    "queues": list[str],
    "specs": list[JobSpec],
    "blocks": list[BlockEntry],
    "jobs": JobColumns,
    "dead": DeadColumns,
    "workers": list[WorkerEntry],
    "calendars": list[CalendarEntry],
    "schedules": list[ScheduleEntry],
    "requests": list[RequestEntry],
    "uniques": list[UniqueEntry],
    "end": int,
}
