"""Read-only views of schedules and their backfills; see `views`, which offers them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from cluster.machine.chronicle import outcomes
from cluster.machine.model import JobSpec, ScheduleEvent
from cluster.machine.state import State
from cluster.machine.tables import Backfill, ScheduleRow
from cluster.plan import Plan


class Outcome(Struct, gc=False):
    """How one of the last runs ended; `state` as in `lifecycle`."""

    job_id: int
    state: int
    nominal_ms: int
    ended_ms: int


class ScheduleView(Struct, gc=False):
    """A schedule. `late` occurrences are made up for one by one, `buffered` ones wait for their
    turn, `manual` ones were triggered by hand. `recent` is oldest first, as are `events`."""

    id: str
    spec: JobSpec
    payload: bytes
    cron: str
    every_ms: int
    next_fire_ms: int
    created_ms: int
    paused: bool
    note: str
    last_fire_ms: int
    last_job_id: int
    run_count: int
    skipped_count: int
    queue_timeout_ms: int
    total_timeout_ms: int
    plan: Plan
    overlap: str
    max_executions: int
    executions: int
    version: int
    changed_ms: int
    ended: str
    next_nominal_ms: int
    last_nominal_ms: int
    accounted_ms: int
    running: list[int]
    late: int
    buffered: int
    manual: int
    backfills: int  # in progress
    recent: list[Outcome]
    events: list[ScheduleEvent]

    @property
    def status(self) -> str:
        """`pending`, `paused` or `ended`."""
        if self.ended:
            return "ended"
        return "paused" if self.paused else "pending"


class BackfillView(Struct, gc=False):
    """`finished_ms` 0: it goes on. `next_ms` 0: it has no rate, or nothing left to offer."""

    id: int
    overlap: str
    per_minute: int
    note: str
    created_ms: int
    total: int
    launched: int
    skipped: int
    waiting: int
    finished_ms: int
    next_ms: int


def schedule(state: State, schedule_id: str) -> ScheduleView | None:
    row = state.tables.schedules.get(schedule_id)
    return _schedule(state, row) if row is not None else None


def schedules(state: State, after_id: str, limit: int) -> list[ScheduleView]:
    """In order of id, after `after_id`."""
    table = state.tables.schedules
    ids = table.irange(minimum=after_id or None, inclusive=(False, True))
    return [_schedule(state, table[i]) for i, _ in zip(ids, range(limit), strict=False)]


def _schedule(state: State, row: ScheduleRow) -> ScheduleView:
    late = buffered = manual = open_backfills = 0
    if row.waiting is not None:
        late, buffered = len(row.waiting.late), len(row.waiting.buffer)
        manual = len(row.waiting.manual)
        open_backfills = sum(not each.finished_ms for each in row.waiting.backfills.values())
    return ScheduleView(
        row.id, row.spec, row.payload, row.cron, row.every_ms, row.next_fire_ms, row.created_ms,
        row.paused, row.note, row.last_fire_ms, row.last_job_id, row.run_count, row.skipped_count,
        row.queue_timeout_ms, row.total_timeout_ms, row.plan, row.overlap, row.max_executions,
        row.executions, row.version, row.changed_ms, row.ended, row.next_nominal_ms,
        row.last_nominal_ms, row.accounted_ms, sorted(state.tables.runs.get(row.id, ())),
        late, buffered, manual, open_backfills,
        [Outcome(*each) for each in outcomes(row)], list(row.events or ()),
    )  # fmt: skip


def schedule_count(state: State) -> int:
    return len(state.tables.schedules)


def backfills(state: State, schedule_id: str) -> list[BackfillView] | None:
    """Newest first, those that finished lately included; None for an unknown schedule."""
    row = state.tables.schedules.get(schedule_id)
    if row is None:
        return None
    found = list(row.waiting.backfills.values()) if row.waiting is not None else []
    return [_backfill(each) for each in reversed(found)]


def _backfill(row: Backfill) -> BackfillView:
    return BackfillView(
        row.id, row.overlap, row.per_minute, row.note, row.created_ms, row.total, row.launched,
        row.skipped, len(row.waiting) + len(row.buffer), row.finished_ms, row.next_ms,
    )  # fmt: skip


def calendar_days(state: State) -> Mapping[str, frozenset[int]]:
    """What policy reads. A later change makes a new mapping: who walks with this one may go on."""
    return state.tables.calendar_days


def missed(state: State) -> dict[str, int]:
    """Occurrences that were not run, by reason, since the cluster began."""
    return dict(state.missed)
