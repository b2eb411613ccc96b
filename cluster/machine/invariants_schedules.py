"""What must hold of schedules and calendars after every batch; see `invariants`."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.machine.chronicle import EVENTS_MAX, OUTCOMES_MAX, outcomes
from cluster.machine.commands import is_increasing
from cluster.machine.launching import MAX_EXECUTIONS, is_used_up
from cluster.machine.overlap import BUFFERED_MAX, LATE_MAX, has_room
from cluster.machine.reducers.backfills import KEPT_MAX, OPEN_MAX
from cluster.machine.reducers.schedules import MANUAL_MAX
from cluster.machine.state import State
from cluster.machine.tables import Backfill, ScheduleRow, Waiting


def check_schedules(state: State) -> None:
    assert not state.runs_ended and not state.schedules_freed, "ended runs were not booked"
    _check_runs(state)
    _check_calendars(state)
    for schedule_id, row in state.tables.schedules.items():
        assert row.id == schedule_id, f"schedule {schedule_id}: wrong id"
        _check_plan(state, row)
        _check_chronicle(row)
        if row.waiting is not None:
            _check_waiting(state, row, row.waiting)


def _check_runs(state: State) -> None:
    alive: dict[str, list[int]] = {}
    for job in state.tables.jobs.values():
        if job.extra is not None and job.extra.schedule_id:
            alive.setdefault(job.extra.schedule_id, []).append(job.id)
    alive = {schedule_id: sorted(ids) for schedule_id, ids in alive.items()}
    runs = {schedule_id: sorted(ids) for schedule_id, ids in state.tables.runs.items()}
    assert runs == alive, "live runs are not what the jobs say"


def _check_calendars(state: State) -> None:
    tables = state.tables
    users: dict[str, set[str]] = {name: set() for name in tables.calendars}
    for row in tables.schedules.values():
        for name in row.plan.calendars:
            assert name in users, f"schedule {row.id}: calendar {name} is gone"
            users[name].add(row.id)
    for name, calendar in tables.calendars.items():
        assert set(calendar.users) == users[name], f"calendar {name}: wrong users"
        assert tables.calendar_days[name] == set(calendar.days), f"calendar {name}: wrong days"
    assert tables.calendar_days.keys() == tables.calendars.keys(), "days of a calendar that is gone"


def _check_plan(state: State, row: ScheduleRow) -> None:
    name = f"schedule {row.id}"
    is_planned = row.next_fire_ms > 0
    assert is_planned != (row.paused or bool(row.ended)), f"{name}: planned and not, or neither"
    is_due = row.id in state.due_schedules
    assert is_due == (is_planned and row.timer is None), f"{name}: due and nobody knows"
    assert row.last_nominal_ms <= row.accounted_ms or not row.last_nominal_ms, (
        f"{name}: unaccounted"
    )
    if is_planned:
        assert row.next_nominal_ms > row.accounted_ms, f"{name}: would be launched again"
    assert (row.ended == MAX_EXECUTIONS) == is_used_up(row), f"{name}: ended {row.ended!r}"
    assert row.version > 0, f"{name}: no version"


def _check_chronicle(row: ScheduleRow) -> None:
    ends = list(outcomes(row))
    assert len(ends) <= OUTCOMES_MAX, f"schedule {row.id}: remembers {len(ends)} outcomes"
    assert len({job_id for job_id, *_ in ends}) == len(ends), f"schedule {row.id}: an end twice"
    assert len(row.events or ()) <= EVENTS_MAX, f"schedule {row.id}: too many events"


def _check_waiting(state: State, row: ScheduleRow, waiting: Waiting) -> None:
    name = f"schedule {row.id}"
    assert len(waiting.late) <= LATE_MAX, f"{name}: too many late ones"
    assert len(waiting.buffer) <= BUFFERED_MAX, f"{name}: too many buffered ones"
    assert len(waiting.manual) <= MANUAL_MAX, f"{name}: too many manual ones"
    for line in (waiting.late, waiting.buffer):
        assert is_increasing(line), f"{name}: waiting out of order"
        assert not line or line[-1] <= row.accounted_ms, f"{name}: waits and is not accounted for"
    if waiting.late or waiting.buffer:
        assert row.ended != MAX_EXECUTIONS, f"{name}: waits in vain"
        assert row.paused or not has_room(state, row, row.overlap), f"{name}: waits for nothing"
    assert not waiting.manual or row.id in state.tables.runs, f"{name}: manual run waits"
    assert len(waiting.backfills) <= KEPT_MAX, f"{name}: too many backfills"
    backfills = waiting.backfills.values()
    assert sum(not each.finished_ms for each in backfills) <= OPEN_MAX, f"{name}: many backfills"
    for backfill in backfills:
        _check_backfill(state, row, backfill)


def _check_backfill(state: State, row: ScheduleRow, backfill: Backfill) -> None:
    name = f"backfill {backfill.id} of {row.id}"
    left = len(backfill.waiting) + len(backfill.buffer)
    assert backfill.launched + backfill.skipped + left == backfill.total, f"{name}: lost some"
    assert (left == 0) == (backfill.finished_ms > 0), f"{name}: finished and not"
    offered: Sequence[int] = backfill.buffer if backfill.per_minute else backfill.waiting
    assert not offered or not has_room(state, row, backfill.overlap), f"{name}: waits for nothing"
    ticks = bool(backfill.per_minute and backfill.waiting)
    assert ticks == (backfill.timer is not None), f"{name}: nobody will offer the next"
    assert backfill.timer is None or backfill.timer.due_ms == backfill.next_ms, f"{name}: its tick"
