"""One occurrence becomes a job that knows its schedule and its nominal time."""

from __future__ import annotations

from cluster.machine.chronicle import record
from cluster.machine.commands import JobChanges
from cluster.machine.effects import Effects
from cluster.machine.jobs import bound_waiting, changed_spec, create_run
from cluster.machine.state import State
from cluster.machine.tables import ScheduleRow
from cluster.machine.timers import SCHEDULE
from cluster.plan import Plan, Trigger

MAX_EXECUTIONS = "max_executions"
EXHAUSTED = "exhausted"
UNCHANGED = JobChanges()
PLANNED = frozenset(("launched", "late"))  # these count towards the bound


def launch(
    state: State,
    row: ScheduleRow,
    nominal_ms: int,
    effects: Effects,
    kind: str,
    changes: JobChanges = UNCHANGED,
) -> int:
    """Create the job; returns its id."""
    spec, payload = row.spec, row.payload
    if changes is not UNCHANGED:
        spec = changed_spec(spec, changes)
        payload = changes.payload if changes.payload is not None else payload
    job = create_run(state, spec, payload, row.id, nominal_ms, effects)
    job_id = job.id
    if row.queue_timeout_ms or row.total_timeout_ms:
        now_ms = state.now_ms
        expires_at_ms = now_ms + row.queue_timeout_ms if row.queue_timeout_ms else 0
        deadline_ms = now_ms + row.total_timeout_ms if row.total_timeout_ms else 0
        bound_waiting(state, expires_at_ms, deadline_ms, (job,), (job_id,))
    row.last_fire_ms, row.last_job_id = nominal_ms, job_id
    row.run_count += 1
    record(state, row, effects, kind, nominal_ms=nominal_ms, job_id=job_id)
    if kind in PLANNED:
        _count_execution(state, row, nominal_ms, effects)
    return job_id


def _count_execution(state: State, row: ScheduleRow, nominal_ms: int, effects: Effects) -> None:
    state.totals.fired += 1
    row.executions += 1
    row.last_nominal_ms = max(row.last_nominal_ms, nominal_ms)
    if is_used_up(row) and row.ended != MAX_EXECUTIONS:
        end(state, row, MAX_EXECUTIONS, effects)


def is_used_up(row: ScheduleRow) -> bool:
    return 0 < row.max_executions <= row.executions


def plan_next(state: State, row: ScheduleRow, fire_ms: int, nominal_ms: int) -> None:
    """The next occurrence; 0 for none."""
    unplan(state, row)
    row.next_fire_ms = fire_ms
    row.next_nominal_ms = (nominal_ms or fire_ms) if fire_ms else 0
    if fire_ms:
        row.timer = state.timers.add(fire_ms, SCHEDULE, (row.id,))


def unplan(state: State, row: ScheduleRow) -> None:
    if row.timer is not None:
        state.timers.drop(row.timer)
        row.timer = None
    state.due_schedules.pop(row.id, None)
    row.next_fire_ms = row.next_nominal_ms = 0


def end(state: State, row: ScheduleRow, reason: str, effects: Effects) -> None:
    """Nothing is planned any more; what waits already goes on, unless it may not run either."""
    unplan(state, row)
    row.ended = reason
    record(state, row, effects, "ended", reason=reason)
    if reason == MAX_EXECUTIONS:
        drop_planned(state, row, reason, effects)


def drop_planned(state: State, row: ScheduleRow, reason: str, effects: Effects) -> None:
    """Planned occurrences that wait are not going to run."""
    waiting = row.waiting
    if waiting is None:
        return
    for column in (waiting.late, waiting.buffer):
        if column:
            record(
                state, row, effects, "skipped",
                nominal_ms=column[0], last_ms=column[-1], count=len(column), reason=reason,
            )  # fmt: skip
            del column[:]


def plan_of(cron: str, every_ms: int, next_fire_ms: int) -> Plan:
    """What the first release wrote, as a plan; its intervals counted from fire to fire."""
    if cron or not every_ms:
        return Plan((Trigger(cron=cron),))
    return Plan((Trigger(every_ms=every_ms, anchor_ms=next_fire_ms % every_ms),))
