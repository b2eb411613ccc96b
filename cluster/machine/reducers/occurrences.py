"""Occurrences of the plan: each is launched once, or written down once.

The leader decides with the clock, the zones and the calendars in hand; the fence here is the fire
time that it expected, and `accounted_ms`, behind which nothing is launched again.
"""

from __future__ import annotations

from cluster.machine.chronicle import record, record_missed
from cluster.machine.commands import FireSchedule, ReplanSchedule, SetReleases, is_increasing
from cluster.machine.effects import Effects
from cluster.machine.launching import EXHAUSTED, MAX_EXECUTIONS, end, plan_next, unplan
from cluster.machine.overlap import IMPATIENT, add_late, offer_planned, release
from cluster.machine.registry import reduces
from cluster.machine.results import DONE, Fired, Rejected, Result
from cluster.machine.state import State
from cluster.machine.tables import ScheduleRow


@reduces(FireSchedule)
def fire_schedule(state: State, command: FireSchedule, effects: Effects) -> Result:
    row = state.tables.schedules.get(command.schedule_id)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    refusal = _why_not(state, row, command)
    if refusal is not None:
        return refusal
    launches = command.launches if command.launches is not None else [row.next_nominal_ms]
    newest_ms = _newest_ms(state, row, command, launches)
    if newest_ms is None or not _is_behind_next(command, newest_ms):
        return Rejected.STALE_FIRE  # would launch an occurrence once more
    unplan(state, row)
    row.accounted_ms = newest_ms
    row.skipped_count += command.skipped
    if command.missed:
        record_missed(state, row, command.missed, effects)
    first_id = _start(state, row, launches, command.late, effects)
    if launches:
        effects.schedule_lags_ms.append(state.now_ms - command.expected_fire_ms)
    if row.ended != MAX_EXECUTIONS:
        if command.next_fire_ms:
            plan_next(state, row, command.next_fire_ms, command.next_nominal_ms)
        else:
            end(state, row, command.ended or EXHAUSTED, effects)
    return Fired(first_id)


def _why_not(state: State, row: ScheduleRow, command: FireSchedule) -> Rejected | None:
    if row.paused:
        return Rejected.PAUSED
    if command.version and command.version != row.version:
        return Rejected.STALE_VERSION
    expected_ms = command.expected_fire_ms
    if not expected_ms or row.next_fire_ms != expected_ms or expected_ms > state.now_ms:
        return Rejected.STALE_FIRE
    return None


def _newest_ms(
    state: State, row: ScheduleRow, command: FireSchedule, launches: list[int]
) -> int | None:
    """Up to where everything is accounted for then. None: not all of it lies behind what was
    accounted for before, in order, and not in the future."""
    if len(launches) == 1 and not (command.late or command.missed):
        newest_ms = launches[0]  # nearly always so; thousands of schedules may be due at once
        return newest_ms if row.accounted_ms < newest_ms <= state.now_ms else None
    nominals = [row.accounted_ms, *command.late, *launches]
    if not is_increasing(nominals) or nominals[-1] > state.now_ms:
        return None
    return max([nominals[-1], *(each.last_ms for each in command.missed)])


def _is_behind_next(command: FireSchedule, newest_ms: int) -> bool:
    """Whether the next occurrence lies ahead of all that.

    Two occurrences may share a fire time: jitter never moves one before the other."""
    if not command.next_fire_ms:
        return True
    if command.next_nominal_ms:
        after = command.next_nominal_ms > newest_ms
        return after and command.next_fire_ms >= command.expected_fire_ms
    return command.next_fire_ms > max(command.expected_fire_ms, newest_ms)


def _start(
    state: State, row: ScheduleRow, launches: list[int], late: list[int], effects: Effects
) -> int:
    """The first job that starts, 0 if none does.

    In nominal order where occurrences wait for each other. Where they would be dropped or stopped
    for what was late, those on time go first."""
    if late and row.overlap not in IMPATIENT:
        add_late(state, row, late, effects)
        release(state, row, effects)
    first_id = 0
    for nominal_ms in launches:
        job_id = offer_planned(state, row, nominal_ms, effects)
        first_id = first_id or job_id
    if late and row.overlap in IMPATIENT:
        add_late(state, row, late, effects)
    if row.waiting is not None:
        state.schedules_freed[row.id] = None
    return first_id


@reduces(ReplanSchedule)
def replan_schedule(state: State, command: ReplanSchedule, effects: Effects) -> Result:
    row = state.tables.schedules.get(command.schedule_id)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    if row.paused:
        return Rejected.PAUSED
    if row.version != command.version:
        return Rejected.STALE_VERSION
    if row.ended == MAX_EXECUTIONS:
        return Rejected.ENDED
    accounted_ms = max([row.accounted_ms, *(each.last_ms for each in command.missed)])
    is_next = command.next_nominal_ms > accounted_ms or not command.next_fire_ms
    if row.next_fire_ms != command.expected_fire_ms or not is_next:
        return Rejected.STALE_FIRE
    row.accounted_ms = accounted_ms
    record_missed(state, row, command.missed, effects)
    record(
        state, row, effects, "replanned",
        nominal_ms=command.next_nominal_ms, reason=command.reason,
    )  # fmt: skip
    if command.next_fire_ms:
        row.ended = ""
        plan_next(state, row, command.next_fire_ms, command.next_nominal_ms)
    elif not row.ended:
        end(state, row, EXHAUSTED, effects)
    return DONE


@reduces(SetReleases)
def set_releases(state: State, command: SetReleases, effects: Effects) -> Result:
    state.releases = command.releases
    return DONE
