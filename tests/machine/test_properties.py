"""What no sequence of batches can break. `MACHINE_EXAMPLES=20000 pytest ...` hunts longer."""

from __future__ import annotations

import os

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machine_moves import KINDS
from machine_replicas import (
    Script,
    book,
    dump,
    garbled,
    goes_on_from_snapshots,
    live,
    replay,
)
from machine_values import NUMBER_MAX, Move

from cluster.history.ended import record_of
from cluster.machine import invariants
from cluster.machine.commands import decode_batch
from cluster.machine.state import State

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "150"))
hunt = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="MACHINE_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

numbers = st.integers(0, NUMBER_MAX)
moves = st.builds(Move, st.integers(0, len(KINDS) - 1), numbers, numbers, numbers, numbers)
scripts = st.lists(st.tuples(numbers, st.lists(moves, max_size=4)), min_size=1, max_size=30)


@hunt
@given(script=scripts)
def test_invariants_hold_and_replay_is_exact(script: Script) -> None:
    state, log = live(script)
    again = replay(log)
    assert again.digest == state.digest
    assert dump(again) == dump(state)


@hunt
@given(script=scripts)
def test_rows_of_ended_jobs_never_change_again(script: Script) -> None:
    """The history reads them later, in another thread."""
    _, log = live(script)
    state, ended = State(), []
    for index, encoded in enumerate(log):
        _, effects = book(state, encoded)
        ended += [(each, index, record_of(each, index)) for each in effects.jobs_finished]
    for finished, index, record in ended:
        assert record_of(finished, index) == record


@hunt
@given(script=scripts, restart_at=st.sets(st.integers(0, 30), min_size=1, max_size=5))
def test_a_replica_restored_from_a_snapshot_goes_on_as_the_others(
    script: Script, restart_at: set[int]
) -> None:
    state, log = live(script)
    twin = goes_on_from_snapshots(log, restart_at)
    assert dump(twin) == dump(state)
    # And when all that waits has come due, too.
    far = b"\x93\x09" + msgspec.msgpack.encode(state.now_ms + 10**9) + b"\x90"
    for replica in (state, twin):
        book(replica, far)
        invariants.check(replica)
    assert dump(twin) == dump(state)
    assert twin.digest == state.digest


@hunt
@given(
    script=scripts,
    damage=st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 255)), max_size=3),
)
def test_damaged_entries_are_refused_and_never_raise(
    script: Script, damage: list[tuple[int, int]]
) -> None:
    """A reader either says DecodeError or gets a batch that the machine can book."""
    _, log = live(script)
    state = State()
    for encoded in log:
        entry = encoded
        for at, value in damage:
            entry = garbled(entry, at, value)
        try:
            decode_batch(entry)
        except msgspec.DecodeError:
            continue
        results, _ = book(state, entry)
        assert len(results) == len(decode_batch(entry).commands)
        invariants.check(state)
    dump(state)


@hunt
@given(data=st.binary(max_size=200))
def test_noise_is_not_a_batch(data: bytes) -> None:
    try:
        batch = decode_batch(data)
    except msgspec.DecodeError:
        return
    book(State(), data)
    assert batch.epoch >= 0
