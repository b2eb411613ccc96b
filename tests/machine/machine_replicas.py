"""Replicas that must agree: one lives on, one replays the log, one goes on from snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machine_moves import batch_of
from machine_values import Move

from cluster.machine import invariants, snapshot
from cluster.machine.apply import apply
from cluster.machine.commands import decode_batch, encode_batch
from cluster.machine.effects import Effects, ready_rows
from cluster.machine.results import Result
from cluster.machine.state import State

Script = Sequence[tuple[int, Sequence[Move]]]


def dump(state: State) -> bytes:
    return b"".join(snapshot.dump(state))


def facts(effects: Effects) -> tuple[Any, ...]:
    """Effects with the rows' contents instead of the rows."""

    def ids(jobs: Sequence[Any]) -> list[tuple[int, int, int]]:
        return [(job.id, job.attempt, job.run_at_ms) for job in jobs]

    return (
        ids(list(ready_rows(effects))),
        ids(effects.jobs_withdrawn),
        [(job.worker_id, job.id, job.attempt, job.run_at_ms) for job in effects.jobs_assigned],
        [
            (f.job.id, f.job.state, f.job.attempt, f.finished_ms, f.output, f.error_type, f.log)
            for f in effects.jobs_finished
        ],
        effects.jobs_stopped,
        effects.jobs_overdue,
        effects.jobs_retrying,
        effects.schedules_due,
        effects.workers_changed,
        effects.workers_left,
        effects.jobs_stopping,
        effects.schedule_events,
        effects.schedule_lags_ms,
        effects.calendars_changed,
    )


def book(state: State, encoded: bytes) -> tuple[list[Result], Effects]:
    return apply(state, decode_batch(encoded))


def live(script: Script) -> tuple[State, list[bytes]]:
    """Play a script, checking the invariants after every batch; the state and its log."""
    state, log = State(), []
    for step, moves in script:
        encoded = encode_batch(batch_of(state, step, moves))
        log.append(encoded)
        book(state, encoded)
        invariants.check(state)
    return state, log


def replay(log: Sequence[bytes]) -> State:
    state = State()
    for encoded in log:
        book(state, encoded)
    return state


def goes_on_from_snapshots(log: Sequence[bytes], restart_at: set[int]) -> State:
    """Two replicas side by side, one of them restored now and then; they agree on everything."""
    state, twin = State(), State()
    for position, encoded in enumerate(log):
        if position in restart_at:
            dumped = dump(state)
            twin = snapshot.load([dumped])
            invariants.check(twin)
            assert dump(twin) == dumped
        results, effects = book(state, encoded)
        twin_results, twin_effects = book(twin, encoded)
        assert results == twin_results
        assert facts(effects) == facts(twin_effects)
        assert state.digest == twin.digest
    return twin


def garbled(batch: bytes, at: int, value: int) -> bytes:
    """One byte changed."""
    at %= len(batch)
    return batch[:at] + bytes([value]) + batch[at + 1 :]
