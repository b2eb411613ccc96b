"""Recurring jobs. The leader computes fire times; here each occurrence is launched exactly once."""

from __future__ import annotations

from cluster.machine.commands import (
    DeleteSchedule,
    FireSchedule,
    JobGroup,
    PauseSchedule,
    PutSchedule,
    ResumeSchedule,
    TriggerSchedule,
)
from cluster.machine.effects import Effects
from cluster.machine.reducers.jobs import create_group, extra_of
from cluster.machine.registry import reduces
from cluster.machine.results import DONE, Fired, Rejected, Result, Scheduled
from cluster.machine.state import State
from cluster.machine.tables import ScheduleRow
from cluster.machine.timers import SCHEDULE


@reduces(PutSchedule)
def put_schedule(state: State, command: PutSchedule, effects: Effects) -> Result:
    schedules = state.tables.schedules
    schedule_id = command.schedule_id
    if not schedule_id:
        while (schedule_id := f"s{state.next_schedule_id}") in schedules:
            state.next_schedule_id += 1  # somebody chose this name by hand
        state.next_schedule_id += 1
    old = schedules.get(schedule_id)
    if old is not None and not command.replace:
        return Rejected.CONFLICT
    row = ScheduleRow(
        schedule_id,
        command.spec,
        command.payload,
        command.cron,
        command.every_ms,
        command.next_fire_ms,
        state.now_ms,
        command.queue_timeout_ms,
        command.total_timeout_ms,
    )
    if old is not None:
        _stop(state, old)
        row.created_ms, row.run_count, row.skipped_count = (
            old.created_ms, old.run_count, old.skipped_count,
        )  # fmt: skip
        row.last_fire_ms, row.last_job_id = old.last_fire_ms, old.last_job_id
        row.paused, row.note = old.paused, old.note
        if row.paused:
            row.next_fire_ms = 0
    schedules[schedule_id] = row
    _plan(state, row)
    return Scheduled(schedule_id)


def _plan(state: State, row: ScheduleRow) -> None:
    if row.next_fire_ms:
        row.timer = state.timers.add(row.next_fire_ms, SCHEDULE, [row.id])


def _stop(state: State, row: ScheduleRow) -> None:
    if row.timer is not None:
        state.timers.drop(row.timer)
        row.timer = None


@reduces(PauseSchedule)
def pause_schedule(state: State, command: PauseSchedule, effects: Effects) -> Result:
    row = state.tables.schedules.get(command.schedule_id)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    _stop(state, row)
    row.paused, row.note, row.next_fire_ms = True, command.note, 0
    return DONE


@reduces(ResumeSchedule)
def resume_schedule(state: State, command: ResumeSchedule, effects: Effects) -> Result:
    row = state.tables.schedules.get(command.schedule_id)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    if not row.paused:
        return DONE
    row.paused, row.note, row.next_fire_ms = False, "", command.next_fire_ms
    _plan(state, row)
    return DONE


@reduces(FireSchedule)
def fire_schedule(state: State, command: FireSchedule, effects: Effects) -> Result:
    row = state.tables.schedules.get(command.schedule_id)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    if row.paused:
        return Rejected.PAUSED
    expected_ms, next_ms = command.expected_fire_ms, command.next_fire_ms
    if not expected_ms or row.next_fire_ms != expected_ms or expected_ms > state.now_ms:
        return Rejected.STALE_FIRE
    if 0 < next_ms <= expected_ms:
        return Rejected.STALE_FIRE  # would launch this occurrence once more
    _stop(state, row)
    job_id = _launch(state, row, expected_ms, effects)
    state.totals.fired += 1
    row.skipped_count += command.skipped
    row.next_fire_ms = next_ms
    _plan(state, row)
    return Fired(job_id)


@reduces(TriggerSchedule)
def trigger_schedule(state: State, command: TriggerSchedule, effects: Effects) -> Result:
    row = state.tables.schedules.get(command.schedule_id)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    return Fired(_launch(state, row, state.now_ms, effects))


def _launch(state: State, row: ScheduleRow, nominal_ms: int, effects: Effects) -> int:
    """One occurrence becomes a job that knows its schedule and its nominal time."""
    now_ms = state.now_ms
    expires_at_ms = now_ms + row.queue_timeout_ms if row.queue_timeout_ms else 0
    deadline_ms = now_ms + row.total_timeout_ms if row.total_timeout_ms else 0
    group = JobGroup(row.spec, [row.payload], 0, expires_at_ms, deadline_ms)
    job_id = create_group(state, group, effects)[0]
    extra = extra_of(state.tables.jobs[job_id])
    extra.schedule_id, extra.nominal_ms = row.id, nominal_ms
    row.last_fire_ms, row.last_job_id = nominal_ms, job_id
    row.run_count += 1
    return job_id


@reduces(DeleteSchedule)
def delete_schedule(state: State, command: DeleteSchedule, effects: Effects) -> Result:
    row = state.tables.schedules.pop(command.schedule_id, None)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    _stop(state, row)
    return DONE
