"""Backfills: occurrences of the past that somebody wants to run (again)."""

from __future__ import annotations

from cluster.machine.chronicle import record
from cluster.machine.commands import StartBackfill, StopBackfill
from cluster.machine.effects import Effects
from cluster.machine.overlap import tick, waiting_of
from cluster.machine.registry import reduces
from cluster.machine.results import DONE, BackfillStarted, Rejected, Result
from cluster.machine.state import State
from cluster.machine.tables import Backfill, Waiting, nominals

OPEN_MAX = 5
KEPT_MAX = 10  # finished ones make room first


@reduces(StartBackfill)
def start_backfill(state: State, command: StartBackfill, effects: Effects) -> Result:
    row = state.tables.schedules.get(command.schedule_id)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    if command.nominals[-1] > state.now_ms:
        return Rejected.STALE_FIRE
    waiting = waiting_of(row)
    if sum(not each.finished_ms for each in waiting.backfills.values()) >= OPEN_MAX:
        return Rejected.FULL
    _make_room(waiting)
    backfill = Backfill(
        row.next_backfill_id, command.overlap, command.per_minute, command.note, state.now_ms,
        len(command.nominals), nominals(command.nominals), nominals(),
    )  # fmt: skip
    row.next_backfill_id += 1
    waiting.backfills[backfill.id] = backfill
    record(
        state, row, effects, "backfill_started", nominal_ms=command.nominals[0],
        last_ms=command.nominals[-1], count=backfill.total, reason=command.note,
    )  # fmt: skip
    if command.per_minute:
        tick(state, row, backfill, effects)
    state.schedules_freed[row.id] = None
    return BackfillStarted(backfill.id)


def _make_room(waiting: Waiting) -> None:
    finished = [each.id for each in waiting.backfills.values() if each.finished_ms]
    while len(waiting.backfills) >= KEPT_MAX:
        del waiting.backfills[finished.pop(0)]


@reduces(StopBackfill)
def stop_backfill(state: State, command: StopBackfill, effects: Effects) -> Result:
    """What it launched goes on."""
    row = state.tables.schedules.get(command.schedule_id)
    if row is None:
        return Rejected.UNKNOWN_SCHEDULE
    backfill = row.waiting.backfills.get(command.backfill_id) if row.waiting is not None else None
    if backfill is None or backfill.finished_ms:
        return Rejected.UNKNOWN_BACKFILL
    if backfill.timer is not None:
        state.timers.drop(backfill.timer)
        backfill.timer, backfill.next_ms = None, 0
    left = len(backfill.waiting) + len(backfill.buffer)
    backfill.skipped += left
    backfill.waiting, backfill.buffer = nominals(), nominals()
    backfill.finished_ms = state.now_ms
    record(state, row, effects, "backfill_stopped", count=left, reason=backfill.note)
    return DONE
