"""What is remembered of a schedule: the outcomes of its last runs and its last events.

Bounded and small, as there may be hundreds of thousands of schedules. Runs are not events here:
every launched job tells its schedule and nominal time itself. Like events in a row become one with
a count, so a schedule that skips every minute keeps one event for a whole day of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.machine import lifecycle
from cluster.machine.effects import Effects
from cluster.machine.model import ScheduleEvent
from cluster.machine.state import State
from cluster.machine.tables import Job, ScheduleRow, nominals
from cluster.plan import Missed

EVENTS_MAX = 20
OUTCOMES_MAX = 20
REASONS_MAX = 50  # in the totals; the leader's reasons are a dozen

LAUNCHES = frozenset(("launched", "late", "triggered", "backfilled"))
OMISSIONS = frozenset(("skipped", "missed", "merged"))
FOLDED = OMISSIONS | {"buffered"}
MERGED = "merged"

_FIELDS = 3  # of an outcome: job id and state, nominal time, end
_STATE_BITS = 3


def record(
    state: State,
    row: ScheduleRow,
    effects: Effects,
    kind: str,
    *,
    nominal_ms: int = 0,
    last_ms: int = 0,
    count: int = 1,
    reason: str = "",
    job_id: int = 0,
) -> None:
    """Tell whoever listens and, but for launches, remember."""
    event = ScheduleEvent(
        state.now_ms, kind, nominal_ms, last_ms or nominal_ms, count, reason, job_id
    )
    effects.schedule_events.append((row.id, event))
    if kind in LAUNCHES:
        return
    if kind in OMISSIONS:
        row.skipped_count += count
        _count_missed(state, reason, count)
    _remember(row, event)


def _count_missed(state: State, reason: str, count: int) -> None:
    known = reason in state.missed or len(state.missed) < REASONS_MAX
    name = reason if known else "other"
    state.missed[name] = state.missed.get(name, 0) + count


def _remember(row: ScheduleRow, event: ScheduleEvent) -> None:
    if row.events is None:
        row.events = []
    events = row.events
    last = events[-1] if events else None
    if last is not None and _is_alike(last, event):
        events[-1] = ScheduleEvent(
            last.at_ms, last.kind, last.nominal_ms, event.last_ms, last.count + event.count,
            last.reason, last.job_id,
        )  # fmt: skip
        return
    events.append(event)
    if len(events) > EVENTS_MAX:
        del events[0]


def _is_alike(last: ScheduleEvent, event: ScheduleEvent) -> bool:
    return (
        event.kind in FOLDED
        and (last.kind, last.reason) == (event.kind, event.reason)
        and last.last_ms < event.nominal_ms
    )


def record_missed(
    state: State, row: ScheduleRow, missed: Sequence[Missed], effects: Effects
) -> None:
    """What the leader decided not to launch."""
    for each in missed:
        kind = "merged" if each.reason == MERGED else "missed"
        record(
            state, row, effects, kind,
            nominal_ms=each.first_ms, last_ms=each.last_ms, count=each.count, reason=each.reason,
        )  # fmt: skip


def note_outcome(row: ScheduleRow, job: Job, ended_ms: int) -> None:
    """A run ended; one that ended before, and was brought back, has its new end only."""
    if row.recent is None:
        row.recent = nominals()
    recent, extra = row.recent, job.extra
    assert extra is not None
    code = job.id << _STATE_BITS | (job.state - lifecycle.COMPLETED)
    for at in range(0, len(recent), _FIELDS):
        if recent[at] >> _STATE_BITS == job.id:
            recent[at], recent[at + 2] = code, ended_ms
            return
    recent.extend((code, extra.nominal_ms, ended_ms))
    if len(recent) > OUTCOMES_MAX * _FIELDS:
        del recent[:_FIELDS]


def outcomes(row: ScheduleRow) -> Iterator[tuple[int, int, int, int]]:
    """`(job id, state, nominal_ms, ended_ms)` of the last runs that ended, oldest first."""
    recent = row.recent or ()
    for at in range(0, len(recent), _FIELDS):
        code = recent[at]
        state = lifecycle.COMPLETED + (code & ((1 << _STATE_BITS) - 1))
        yield code >> _STATE_BITS, state, recent[at + 1], recent[at + 2]
