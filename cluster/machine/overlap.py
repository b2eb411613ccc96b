"""Whether an occurrence may start while others of its schedule run: the six policies.

A run counts from its launch until its job has ended for good, retries included. What an occurrence
meets is decided when it is offered, and again whenever a run ends, inside the command that ended
it: so the answer follows from state alone, and no crash can come between.

Occurrences that are late, and backfills without a rate, are never offered. They wait, and one
starts when there is room: when nothing runs, or under `allow_all` fewer than CATCHUP_RUNS_MAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from cluster.machine import lifecycle
from cluster.machine.chronicle import note_outcome, record
from cluster.machine.commands import JobChanges
from cluster.machine.effects import Effects
from cluster.machine.jobs import cancel_one, extra_of
from cluster.machine.launching import MAX_EXECUTIONS, UNCHANGED, drop_planned, launch
from cluster.machine.state import State
from cluster.machine.tables import Backfill, ManualRun, ScheduleRow, Waiting, new_waiting
from cluster.machine.timers import BACKFILL, STOP

CATCHUP_RUNS_MAX = 10
LATE_MAX = 1_000
BUFFERED_MAX = 1_000
STOP_GRACE_MS = 30_000  # for a worker to say how a run that was asked to stop has ended
REPLACED_TEXT = "a newer occurrence of its schedule took its place"

# These drop or stop what is in the way, so an occurrence on time goes before those that are late.
IMPATIENT = frozenset(("skip", "cancel_other", "terminate_other"))


class Offer(Struct):
    """An occurrence and the line it stands in when it has to wait."""

    row: ScheduleRow
    kind: str
    nominal_ms: int
    line: Any  # of nominal times, or of manual runs
    changes: JobChanges = UNCHANGED
    backfill: Backfill | None = None

    def launch(self, state: State, effects: Effects) -> int:
        if self.backfill is not None:
            self.backfill.launched += 1
        return launch(state, self.row, self.nominal_ms, effects, self.kind, self.changes)

    def wait(self, state: State, effects: Effects) -> int:
        manual = self.kind == "triggered"
        self.line.append(ManualRun(self.nominal_ms, self.changes) if manual else self.nominal_ms)
        record(state, self.row, effects, "buffered", nominal_ms=self.nominal_ms)
        return 0

    def skip(self, state: State, effects: Effects, reason: str, nominal_ms: int = 0) -> int:
        if self.backfill is not None:
            self.backfill.skipped += 1
        nominal_ms = nominal_ms or self.nominal_ms
        record(state, self.row, effects, "skipped", nominal_ms=nominal_ms, reason=reason)
        return 0


def _skip(state: State, offer: Offer, effects: Effects) -> int:
    return offer.skip(state, effects, "overlap")


def _buffer_one(state: State, offer: Offer, effects: Effects) -> int:
    if offer.line:
        return offer.skip(state, effects, "buffer_full")
    return offer.wait(state, effects)


def _buffer_all(state: State, offer: Offer, effects: Effects) -> int:
    if len(offer.line) >= BUFFERED_MAX:
        return offer.skip(state, effects, "buffer_full")
    return offer.wait(state, effects)


def _cancel_other(state: State, offer: Offer, effects: Effects) -> int:
    """The newest waits until what runs has stopped."""
    for older in offer.line:
        nominal_ms = older.nominal_ms if isinstance(older, ManualRun) else older
        offer.skip(state, effects, "replaced", nominal_ms)
    del offer.line[:]
    _stop_others(state, offer, effects, _ask_to_stop, "asked")
    if offer.row.id not in state.tables.runs:
        return offer.launch(state, effects)  # nobody was executing what stood in the way
    return offer.wait(state, effects)


def _terminate_other(state: State, offer: Offer, effects: Effects) -> int:
    _stop_others(state, offer, effects, _terminate, "terminated")
    return offer.launch(state, effects)


def _allow_all(state: State, offer: Offer, effects: Effects) -> int:
    return offer.launch(state, effects)


POLICIES: dict[str, Callable[[State, Offer, Effects], int]] = {
    "skip": _skip,
    "buffer_one": _buffer_one,
    "buffer_all": _buffer_all,
    "cancel_other": _cancel_other,
    "terminate_other": _terminate_other,
    "allow_all": _allow_all,
}


# -- stopping ------------------------------------------------------------------------------------


def _stop_others(
    state: State,
    offer: Offer,
    effects: Effects,
    stop: Callable[[State, int, Effects], bool],
    reason: str,
) -> None:
    """One event for all, so that a thousand runs do not push out everything else."""
    runs = state.tables.runs.get(offer.row.id, {})
    stopped = [job_id for job_id in sorted(runs) if stop(state, job_id, effects)]
    if stopped:
        record(
            state, offer.row, effects, "cancelled_other",
            nominal_ms=offer.nominal_ms, count=len(stopped), reason=reason, job_id=stopped[0],
        )  # fmt: skip
    _book_ends(state)


def _terminate(state: State, job_id: int, effects: Effects) -> bool:
    job = state.own(job_id)
    assert job is not None
    cancel_one(state, job, REPLACED_TEXT, effects)
    return True


def _ask_to_stop(state: State, job_id: int, effects: Effects) -> bool:
    """A run that nobody executes ends at once; another one when its worker says so, or when its
    time is up. False: it was asked before."""
    job = state.tables.jobs[job_id]
    if job.state != lifecycle.RUNNING:
        return _terminate(state, job_id, effects)
    extra = extra_of(job)
    if extra.stop_by_ms:
        return False
    extra.stop_by_ms = state.now_ms + STOP_GRACE_MS
    extra.stop_timer = state.timers.add(extra.stop_by_ms, STOP, [job_id])
    effects.jobs_stopping.append((job.worker_id, job_id, job.attempt))
    return True


def stop_overdue(state: State, due_ms: int, job_ids: Sequence[int], effects: Effects) -> None:
    """Timer: whoever was asked to stop had its time."""
    for job_id in job_ids:
        job = state.tables.jobs.row(job_id)
        if job is None or job.extra is None or job.extra.stop_by_ms != due_ms:
            continue
        job.extra.stop_timer = None
        cancel_one(state, job, REPLACED_TEXT, effects)


# -- offering ------------------------------------------------------------------------------------


def waiting_of(row: ScheduleRow) -> Waiting:
    if row.waiting is None:
        row.waiting = new_waiting()
    return row.waiting


def offer_planned(state: State, row: ScheduleRow, nominal_ms: int, effects: Effects) -> int:
    """An occurrence that is on time. The job's id, 0 if none started."""
    if row.ended == MAX_EXECUTIONS:
        record(state, row, effects, "skipped", nominal_ms=nominal_ms, reason=MAX_EXECUTIONS)
        return 0
    if row.id not in state.tables.runs or row.overlap == "allow_all":
        return launch(state, row, nominal_ms, effects, "launched")
    line = waiting_of(row).buffer
    return POLICIES[row.overlap](state, Offer(row, "launched", nominal_ms, line), effects)


def offer_manual(
    state: State, row: ScheduleRow, changes: JobChanges, overlap: str, effects: Effects
) -> int:
    if row.id not in state.tables.runs or overlap == "allow_all":
        return launch(state, row, state.now_ms, effects, "triggered", changes)
    line = waiting_of(row).manual
    offer = Offer(row, "triggered", state.now_ms, line, changes)
    return POLICIES[overlap](state, offer, effects)


def add_late(state: State, row: ScheduleRow, late: Sequence[int], effects: Effects) -> None:
    """Occurrences to be made up for, oldest first. Beyond the bound the oldest are dropped."""
    line = waiting_of(row).late
    line.extend(late)
    record(state, row, effects, "catchup", nominal_ms=late[0], last_ms=late[-1], count=len(late))
    if row.ended == MAX_EXECUTIONS:
        drop_planned(state, row, MAX_EXECUTIONS, effects)
    excess = len(line) - LATE_MAX
    if excess > 0:
        record(
            state, row, effects, "skipped", nominal_ms=line[0], last_ms=line[excess - 1],
            count=excess, reason="backlog_full",
        )  # fmt: skip
        del line[:excess]


# -- when there is room --------------------------------------------------------------------------


def settle(state: State, effects: Effects) -> None:
    """Book the runs that ended in this command, then start what waited for them."""
    while state.runs_ended or state.schedules_freed:
        _book_ends(state)
        freed, state.schedules_freed = state.schedules_freed, {}
        for schedule_id in freed:
            row = state.tables.schedules.get(schedule_id)
            if row is not None:
                release(state, row, effects)


def _book_ends(state: State) -> None:
    ended, state.runs_ended = state.runs_ended, []
    for job in ended:
        extra = job.extra
        assert extra is not None
        state.tables.drop_run(extra.schedule_id, job.id)
        row = state.tables.schedules.get(extra.schedule_id)
        if row is not None:
            note_outcome(row, job, state.now_ms)
            if row.waiting is not None:
                state.schedules_freed[row.id] = None


def release(state: State, row: ScheduleRow, effects: Effects) -> None:
    """Start what waits for as long as there is room: what a person asked for, then the plan, then
    backfills. A pause holds the plan only."""
    waiting = row.waiting
    if waiting is None:
        return
    while waiting.manual and row.id not in state.tables.runs:
        manual = waiting.manual.pop(0)
        launch(state, row, manual.nominal_ms, effects, "triggered", manual.changes)
    while not row.paused and (waiting.late or waiting.buffer) and has_room(state, row, row.overlap):
        line, kind = _next_line(row, waiting)
        launch(state, row, line.pop(0), effects, kind)
    for backfill in waiting.backfills.values():
        _release_backfill(state, row, backfill, effects)
    if not (waiting.late or waiting.buffer or waiting.manual or waiting.backfills):
        row.waiting = None


def has_room(state: State, row: ScheduleRow, overlap: str) -> bool:
    runs = state.tables.runs.get(row.id)
    if runs is None:
        return True
    return overlap == "allow_all" and len(runs) < CATCHUP_RUNS_MAX


def _next_line(row: ScheduleRow, waiting: Waiting) -> tuple[Any, str]:
    """In nominal order, but what took the place of others does not wait behind older ones."""
    late, buffer = waiting.late, waiting.buffer
    if buffer and (not late or row.overlap in IMPATIENT or buffer[0] < late[0]):
        return buffer, "launched"
    return late, "late"


def _release_backfill(state: State, row: ScheduleRow, backfill: Backfill, effects: Effects) -> None:
    if backfill.finished_ms:
        return
    line = backfill.buffer if backfill.per_minute else backfill.waiting
    while line and has_room(state, row, backfill.overlap):
        backfill.launched += 1
        launch(state, row, line.pop(0), effects, "backfilled")
    finish_if_done(state, row, backfill, effects)


# -- backfills with a rate -----------------------------------------------------------------------


def tick(state: State, row: ScheduleRow, backfill: Backfill, effects: Effects) -> None:
    """Offer the next one, and plan the tick after it from now: ticks that a stalled cluster missed
    do not come in a burst."""
    backfill.timer, backfill.next_ms = None, 0
    nominal_ms = backfill.waiting.pop(0)
    offer = Offer(row, "backfilled", nominal_ms, backfill.buffer, backfill=backfill)
    if row.id in state.tables.runs:
        POLICIES[backfill.overlap](state, offer, effects)
    else:
        offer.launch(state, effects)
    if backfill.waiting:
        backfill.next_ms = state.now_ms + max(60_000 // backfill.per_minute, 1)
        backfill.timer = state.timers.add(backfill.next_ms, BACKFILL, [row.id])
    finish_if_done(state, row, backfill, effects)


def ticks_due(state: State, due_ms: int, schedule_ids: Sequence[str], effects: Effects) -> None:
    """Timer; a schedule with two ticks at one moment is named twice."""
    for schedule_id in dict.fromkeys(schedule_ids):
        row = state.tables.schedules.get(schedule_id)
        if row is None or row.waiting is None:
            continue
        for backfill in list(row.waiting.backfills.values()):
            if backfill.next_ms == due_ms:
                tick(state, row, backfill, effects)


def finish_if_done(state: State, row: ScheduleRow, backfill: Backfill, effects: Effects) -> None:
    if not backfill.waiting and not backfill.buffer and not backfill.finished_ms:
        backfill.finished_ms = state.now_ms
        record(
            state, row, effects, "backfill_finished",
            count=backfill.launched, reason=backfill.note,
        )  # fmt: skip
