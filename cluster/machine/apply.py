"""`apply`: one batch in, results and effects out. Total: it never raises in production, but for
a lack of memory, which ends the node.

Order inside a batch: the epoch fence, then time (due timers fire), then the commands one by one,
each with what follows from it for schedules whose runs it ended.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import msgspec

from cluster.machine import reducers  # noqa: F401  (registers them)
from cluster.machine.commands import Batch, Unreadable
from cluster.machine.effects import Effects, new_effects
from cluster.machine.firing import fire
from cluster.machine.levels import BASE_LEVEL, HIGHEST_LEVEL, is_known
from cluster.machine.overlap import settle
from cluster.machine.registry import REDUCERS, reduces
from cluster.machine.results import Rejected, Result
from cluster.machine.state import NO_JOBS, State

_encode = msgspec.msgpack.Encoder().encode


def _keep_quiet(bug: Exception) -> None:
    """The machine itself writes no logs."""


class Strictness:
    """What becomes of a bug. Tests and simulation set `raise_bugs`: it then stops them; a node has
    it counted, refused, and given to `report` with its traceback."""

    raise_bugs = False
    report: Callable[[Exception], None] = staticmethod(_keep_quiet)


def _book_bug(state: State, bug: Exception) -> None:
    if Strictness.raise_bugs:
        raise bug
    state.totals.rejected_internal += 1
    Strictness.report(bug)


def apply(state: State, batch: Batch) -> tuple[list[Result], Effects]:
    """Book a batch. A batch of a deposed leader changes nothing and is refused whole."""
    effects = new_effects()
    if batch.epoch < state.epoch:
        return [Rejected.STALE_EPOCH] * len(batch.commands), effects
    state.epoch = batch.epoch
    state.now_ms = max(state.now_ms, batch.now_ms)
    _fire_due(state, effects)
    if state.level < HIGHEST_LEVEL:
        results = [_apply_known(state, command, effects) for command in batch.commands]
    else:
        results = [_apply_one(state, command, effects) for command in batch.commands]
    state.new_jobs = NO_JOBS
    _roll_digest(state, results)
    return results, effects


def _fire_due(state: State, effects: Effects) -> None:
    for due_ms, kind, members in state.timers.take_due(state.now_ms):
        try:
            fire(state, due_ms, kind, members, effects)
        except MemoryError:
            raise
        except Exception as bug:
            _book_bug(state, bug)
        if state.runs_ended or state.schedules_freed:
            _settle(state, effects)


def _apply_known(state: State, command: object, effects: Effects) -> Result:
    """An older member cannot read what is above the cluster's level; so nobody applies it."""
    if not is_known(type(command), state.level):
        return Rejected.UNDECODABLE
    return _apply_one(state, command, effects)


def _apply_one(state: State, command: object, effects: Effects) -> Result:
    try:
        result = REDUCERS[type(command)](state, command, effects)
    except MemoryError:
        raise  # this node's trouble alone: going on would make it another replica than the others
    except Exception as bug:
        _book_bug(state, bug)
        result = Rejected.INTERNAL
    if state.runs_ended or state.schedules_freed:
        _settle(state, effects)
    return result


def _settle(state: State, effects: Effects) -> None:
    try:
        settle(state, effects)
    except MemoryError:
        raise
    except Exception as bug:
        _book_bug(state, bug)


@reduces(Unreadable)
def refuse_unreadable(state: State, command: Unreadable, effects: Effects) -> Result:
    return Rejected.UNDECODABLE


def _roll_digest(state: State, results: list[Result]) -> None:
    """Fold in the results and the counters that every kind of change moves."""
    tables, totals = state.tables, state.totals
    digest = zlib.crc32(_encode(results), state.digest)
    counters = (
        state.now_ms,
        state.epoch,
        state.next_job_id,
        state.next_worker_id,
        state.next_schedule_id,
        len(tables.jobs),
        len(tables.dead),
        len(tables.specs),
        len(tables.workers),
        len(tables.schedules),
        len(tables.requests),
        len(tables.uniques),
        totals.completed,
        totals.failed,
        totals.cancelled,
        totals.retries,
        totals.fired,
    )
    digest = zlib.crc32(_encode(counters), digest)
    if state.missed or tables.calendars or state.releases:
        # Not of old: a log of the first release must lead to the digests that it led to then.
        later = (state.missed, len(tables.calendars), state.releases)
        digest = zlib.crc32(_encode(later), digest)
    if state.level > BASE_LEVEL:
        digest = zlib.crc32(_encode(state.level), digest)
    state.digest = digest
