"""Schedules and calendars in snapshots: rows to entries and back.

What follows from other rows is not written: which runs are alive, and who uses which calendar.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from cluster.machine.launching import EXHAUSTED, plan_of
from cluster.machine.snapshot_format import BackfillEntry, CalendarEntry, ScheduleEntry
from cluster.machine.tables import (
    Backfill,
    CalendarRow,
    ScheduleRow,
    Waiting,
    new_waiting,
    nominals,
)

NOTHING = new_waiting()


def weight(rows: Sequence[ScheduleRow]) -> int:
    """About how many bytes they take."""
    return sum(len(row.payload) + 9 * _numbers(row.waiting) for row in rows)


def _numbers(waiting: Waiting | None) -> int:
    if waiting is None:
        return 0
    backfills = sum(len(each.waiting) + len(each.buffer) for each in waiting.backfills.values())
    return len(waiting.late) + len(waiting.buffer) + backfills


def schedule_entry(row: ScheduleRow) -> ScheduleEntry:
    waiting = row.waiting or NOTHING
    return ScheduleEntry(
        row.id, row.spec, row.payload, row.cron, row.every_ms, row.next_fire_ms, row.created_ms,
        row.queue_timeout_ms, row.total_timeout_ms, row.paused, row.note, row.last_fire_ms,
        row.last_job_id, row.run_count, row.skipped_count, row.timer is not None,
        row.plan, row.overlap, row.max_executions, row.executions, row.version, row.changed_ms,
        row.ended, row.next_nominal_ms, row.last_nominal_ms, row.accounted_ms,
        row.next_backfill_id, _list(row.recent), list(row.events or ()),
        _list(waiting.late), _list(waiting.buffer), waiting.manual,
        [_backfill_entry(each) for each in waiting.backfills.values()],
    )  # fmt: skip


def _list(column: array[int] | None) -> list[int]:
    return column.tolist() if column is not None else []


def _backfill_entry(backfill: Backfill) -> BackfillEntry:
    return BackfillEntry(
        backfill.id, backfill.overlap, backfill.per_minute, backfill.note, backfill.created_ms,
        backfill.total, backfill.waiting.tolist(), backfill.buffer.tolist(), backfill.launched,
        backfill.skipped, backfill.finished_ms, backfill.next_ms,
    )  # fmt: skip


def schedule_row(s: ScheduleEntry, now_ms: int) -> ScheduleRow:
    """Without its timers."""
    row = ScheduleRow(
        s.id, s.spec, s.payload, s.cron, s.every_ms, s.next_fire_ms, s.created_ms,
        s.queue_timeout_ms, s.total_timeout_ms, s.paused, s.note, s.last_fire_ms, s.last_job_id,
        s.run_count, s.skipped_count, None,
        s.plan or plan_of(s.cron, s.every_ms, s.next_fire_ms), s.overlap, s.max_executions,
        s.executions, s.version, s.changed_ms, s.ended, s.next_nominal_ms, s.last_nominal_ms,
        s.accounted_ms, s.next_backfill_id, _waiting(s),
        nominals(s.recent) if s.recent else None, s.events or None,
    )  # fmt: skip
    if s.plan is None:
        _complete_old(row, now_ms)
    return row


def _complete_old(row: ScheduleRow, now_ms: int) -> None:
    """What the first release did not know."""
    row.next_nominal_ms = row.next_fire_ms
    row.accounted_ms = min(now_ms, row.next_fire_ms - 1) if row.next_fire_ms else now_ms
    row.changed_ms = row.created_ms
    if not row.next_fire_ms and not row.paused:
        row.ended = EXHAUSTED


def _waiting(s: ScheduleEntry) -> Waiting | None:
    if not (s.late or s.buffer or s.manual or s.backfills):
        return None
    backfills = {
        each.id: Backfill(
            each.id, each.overlap, each.per_minute, each.note, each.created_ms, each.total,
            nominals(each.waiting), nominals(each.buffer), each.launched, each.skipped,
            each.finished_ms, each.next_ms,
        )
        for each in s.backfills
    }  # fmt: skip
    return Waiting(nominals(s.late), nominals(s.buffer), s.manual, backfills)


def calendar_entry(row: CalendarRow) -> CalendarEntry:
    return CalendarEntry(
        row.name, row.days.tolist(), row.labels, row.description, row.source, row.version,
        row.changed_ms,
    )  # fmt: skip


def calendar_row(c: CalendarEntry) -> CalendarRow:
    """Without its users."""
    return CalendarRow(
        c.name, nominals(c.days), c.labels, c.description, c.source, c.version, c.changed_ms, {}
    )
