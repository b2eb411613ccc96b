"""Recurring jobs: their definition and whether they are planned at all.

The leader computes when they fire; the launching itself is in `occurrences`.
"""

from __future__ import annotations

from cluster.machine.chronicle import record, record_missed
from cluster.machine.commands import (
    DeleteSchedule,
    PauseSchedule,
    PutSchedule,
    ResumeSchedule,
    TriggerSchedule,
)
from cluster.machine.effects import Effects
from cluster.machine.launching import (
    EXHAUSTED,
    MAX_EXECUTIONS,
    drop_planned,
    end,
    is_used_up,
    plan_next,
    plan_of,
    unplan,
)
from cluster.machine.overlap import offer_manual
from cluster.machine.registry import reduces
from cluster.machine.results import DONE, Fired, Rejected, Result, Scheduled
from cluster.machine.state import State
from cluster.machine.tables import ScheduleRow

MANUAL_MAX = 100  # runs asked for by hand that wait

# What a new definition leaves alone: what happened so far, what waits, and a pause.
KEPT = (
    "created_ms", "run_count", "skipped_count", "executions", "last_fire_ms", "last_job_id",
    "last_nominal_ms", "paused", "note", "next_backfill_id", "waiting", "recent", "events",
)  # fmt: skip


@reduces(PutSchedule)
def put_schedule(state: State, command: PutSchedule, effects: Effects) -> Result:
    schedules, schedule_id = state.tables.schedules, command.schedule_id
    old: ScheduleRow | None = schedules.get(schedule_id) if schedule_id else None
    refusal = _why_not(state, command, old)
    if refusal is not None:
        return refusal
    if not schedule_id:
        while (schedule_id := f"s{state.next_schedule_id}") in schedules:
            state.next_schedule_id += 1  # somebody chose this name by hand
        state.next_schedule_id += 1
    row = _row(state, command, schedule_id)
    row.accounted_ms = _accounted_ms(state, command, old, row)
    if old is not None:
        _drop_due(state, row, old, effects)
        _succeed(state, row, old)
    schedules[schedule_id] = row
    _follow_calendars(state, row)
    if old is not None:
        record(state, row, effects, "changed", reason=command.reason)
    if command.paused and not row.paused:
        row.paused, row.note = True, command.note
        record(state, row, effects, "paused", reason=command.note)
    _start(state, row, command.next_fire_ms, command.next_nominal_ms, effects)
    return Scheduled(schedule_id)


def _why_not(state: State, command: PutSchedule, old: ScheduleRow | None) -> Rejected | None:
    if command.expected_version and (old is None or old.version != command.expected_version):
        return Rejected.STALE_VERSION
    if old is not None and not command.replace:
        return Rejected.CONFLICT
    calendars = command.plan.calendars if command.plan is not None else ()
    if any(name not in state.tables.calendars for name in calendars):
        return Rejected.UNKNOWN_CALENDAR
    if old is not None and command.next_fire_ms:
        nominal_ms = command.next_nominal_ms
        if (nominal_ms or command.next_fire_ms) <= _floor_ms(old, nominal_ms):
            return Rejected.STALE_FIRE
    return None


def _floor_ms(row: ScheduleRow, nominal_ms: int) -> int:
    """Nothing up to here may be planned again. The first release, which knew no nominal times,
    might plan what was launched before; only what waits by now must not be doubled."""
    if nominal_ms:
        return row.accounted_ms
    waiting = row.waiting
    lines = (waiting.late, waiting.buffer) if waiting is not None else ()
    return max((line[-1] for line in lines if line), default=0)


def _row(state: State, command: PutSchedule, schedule_id: str) -> ScheduleRow:
    return ScheduleRow(
        schedule_id,
        command.spec,
        command.payload,
        command.cron,
        command.every_ms,
        0,
        state.now_ms,
        command.queue_timeout_ms,
        command.total_timeout_ms,
        plan=command.plan or plan_of(command.cron, command.every_ms, command.next_fire_ms),
        overlap=command.overlap,
        max_executions=command.max_executions,
        changed_ms=state.now_ms,
    )


def _accounted_ms(
    state: State, command: PutSchedule, old: ScheduleRow | None, row: ScheduleRow
) -> int:
    """An equal plan goes on where it was, so that what it omits meanwhile is written down. Another
    one begins now, or where its first occurrence does, if the leader's entry came late."""
    nominal_ms = command.next_nominal_ms or command.next_fire_ms
    if (
        old is not None
        and old.plan == row.plan
        and (old.paused or not nominal_ms or nominal_ms == old.next_nominal_ms)
    ):
        return old.accounted_ms
    floor_ms = _floor_ms(old, command.next_nominal_ms) if old is not None else 0
    return max(floor_ms, min(state.now_ms, nominal_ms - 1) if nominal_ms else state.now_ms)


def _drop_due(state: State, row: ScheduleRow, old: ScheduleRow, effects: Effects) -> None:
    """The old plan's occurrence that was due and not launched yet is not the new plan's."""
    if old.id in state.due_schedules and row.accounted_ms >= old.next_nominal_ms:
        record(state, old, effects, "skipped", nominal_ms=old.next_nominal_ms, reason="changed")


def _succeed(state: State, row: ScheduleRow, old: ScheduleRow) -> None:
    unplan(state, old)
    _leave_calendars(state, old)
    for name in KEPT:
        setattr(row, name, getattr(old, name))
    row.version = old.version + 1


def _start(state: State, row: ScheduleRow, fire_ms: int, nominal_ms: int, effects: Effects) -> None:
    """Plan the first occurrence of a definition or after a pause."""
    nominal_ms = nominal_ms or fire_ms
    row.ended = ""
    if is_used_up(row):
        end(state, row, MAX_EXECUTIONS, effects)
    elif not row.paused:
        plan_next(state, row, fire_ms, nominal_ms)
        row.ended = "" if fire_ms else EXHAUSTED
    state.schedules_freed[row.id] = None


def _follow_calendars(state: State, row: ScheduleRow) -> None:
    for name in row.plan.calendars:
        state.tables.calendars[name].users[row.id] = None


def _leave_calendars(state: State, row: ScheduleRow) -> None:
    for name in row.plan.calendars:
        state.tables.calendars[name].users.pop(row.id, None)


@reduces(PauseSchedule)
def pause_schedule(state: State, command: PauseSchedule, effects: Effects) -> Result:
    row = state.tables.schedules.get(command.schedule_id)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    unplan(state, row)
    row.paused, row.note = True, command.note
    record(state, row, effects, "paused", reason=command.note)
    return DONE


@reduces(ResumeSchedule)
def resume_schedule(state: State, command: ResumeSchedule, effects: Effects) -> Result:
    row = state.tables.schedules.get(command.schedule_id)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    if not row.paused:
        return DONE
    floor_ms = _resume_floor_ms(state, row, command)
    if command.next_fire_ms and (command.next_nominal_ms or command.next_fire_ms) <= floor_ms:
        return Rejected.STALE_FIRE
    row.accounted_ms = floor_ms
    row.paused, row.note = False, ""
    record_missed(state, row, command.missed, effects)
    record(state, row, effects, "resumed", nominal_ms=command.next_nominal_ms)
    if row.ended != MAX_EXECUTIONS:
        _start(state, row, command.next_fire_ms, command.next_nominal_ms, effects)
    return DONE


def _resume_floor_ms(state: State, row: ScheduleRow, command: ResumeSchedule) -> int:
    """What is accounted for once the schedule goes on."""
    told = [each.last_ms for each in command.missed]
    if command.next_nominal_ms or not command.next_fire_ms:
        return max([row.accounted_ms, *told])
    passed_ms = min(state.now_ms, command.next_fire_ms - 1)
    return max([_floor_ms(row, 0), passed_ms, *told])


@reduces(TriggerSchedule)
def trigger_schedule(state: State, command: TriggerSchedule, effects: Effects) -> Result:
    row = state.tables.schedules.get(command.schedule_id)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    if row.waiting is not None and len(row.waiting.manual) >= MANUAL_MAX:
        return Rejected.FULL
    return Fired(offer_manual(state, row, command.changes, command.overlap, effects))


@reduces(DeleteSchedule)
def delete_schedule(state: State, command: DeleteSchedule, effects: Effects) -> Result:
    """What it launched goes on; what waits is dropped."""
    row = state.tables.schedules.pop(command.schedule_id, None)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    unplan(state, row)
    _leave_calendars(state, row)
    drop_planned(state, row, "deleted", effects)
    if row.waiting is not None:
        for backfill in row.waiting.backfills.values():
            if backfill.timer is not None:
                state.timers.drop(backfill.timer)
    record(state, row, effects, "deleted")
    return DONE
