"""Blocks change what a pending job costs, and nothing else: a machine without them is the model."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from machine_moves import batch_of
from machine_replicas import Script, book, dump
from test_golden_log import GOLDEN, LOGS, entries_of
from test_properties import scripts
from test_snapshot import record, records

from cluster.machine import blocks, invariants, lifecycle, snapshot, views
from cluster.machine import commands as c
from cluster.machine.commands import encode_batch
from cluster.machine.effects import Effects, ready_rows
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.snapshot_format import BlockEntry
from cluster.machine.state import State
from cluster.machine.tables import Block
from cluster.machine.views import JobFilter

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "150"))
NEVER = 1 << 40
MAIL = JobSpec("mail")
WORKER = c.RegisterWorker(WorkerSpec("host", 4, ("*",), ("mail",)))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_JOBS_MIN", 2)


def tell(state: State, *commands: c.Command, now_ms: int = 1_000) -> Effects:
    _, effects = book(state, encode_batch(c.Batch(1, now_ms, list(commands))))
    invariants.check(state)
    return effects


def submit(count: int, at_ms: int = 0, **bounds: int) -> c.SubmitJobs:
    payloads = [b"%d" % n for n in range(count)]
    return c.SubmitJobs([c.JobGroup(MAIL, payloads, at_ms, **bounds)])


def facts(state: State, effects: Effects) -> Any:
    """What a batch brought about, without the order in which hints of one kind come."""

    def still_ready() -> Iterator[tuple[int, int, int]]:
        for job in ready_rows(effects):
            if job.state == lifecycle.READY:
                yield job.id, job.attempt, job.run_at_ms

    return (
        sorted(still_ready()),
        [(j.worker_id, j.id, j.attempt, j.payload) for j in effects.jobs_assigned],
        sorted((f.job.id, f.job.state, f.job.attempt, f.job.payload, f.finished_ms,
                f.error_type, f.output or b"") for f in effects.jobs_finished),
        effects.jobs_stopped, sorted(effects.jobs_overdue), effects.jobs_retrying,
        effects.schedules_due, effects.workers_left, effects.jobs_stopping,
    )  # fmt: skip


def shown(state: State) -> Any:
    """What anybody can see of the jobs."""
    pages = [
        views.jobs(state, JobFilter(status, queue), before_id, 7)
        for status in ("", "pending", "running")
        for queue in ("", "slow")
        for before_id in (0, 9)
    ]
    return (
        pages,
        [views.job(state, job_id) for job_id in sorted(state.tables.jobs)],
        views.queues(state),
        views.jobs_by_status(state),
        len(state.timers.wheel) == 0,
    )


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="MACHINE_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(script=scripts)
def test_a_machine_without_blocks_says_and_shows_the_same(
    monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    with_blocks, without, loaded = State(), State(), State()
    for step, moves in script:
        entry = encode_batch(batch_of(without, step, moves))
        monkeypatch.setattr(blocks, "BLOCK_JOBS_MIN", NEVER)
        results, effects = book(without, entry)
        monkeypatch.setattr(blocks, "BLOCK_JOBS_MIN", 2)
        expected = facts(without, effects)
        for state in (with_blocks, loaded):
            answer, told = book(state, entry)
            assert answer == results
            assert facts(state, told) == expected
            assert state.digest == without.digest
            assert shown(state) == shown(without)
            invariants.check(state)
        loaded = snapshot.load([dump(loaded)])
    assert not without.tables.jobs.blocks
    assert dump(loaded) == dump(with_blocks)


@pytest.mark.parametrize("name", LOGS)
def test_golden_logs_and_snapshots_lead_to_the_same_with_blocks(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    states = []
    for jobs_min in (2, NEVER):
        monkeypatch.setattr(blocks, "BLOCK_JOBS_MIN", jobs_min)
        state = snapshot.load([(GOLDEN / f"{name}.snapshot").read_bytes()])
        for entry in entries_of(name):
            book(state, entry)
            invariants.check(state)
        states.append(state)
    assert states[0].digest == states[1].digest
    assert shown(states[0]) == shown(states[1])


def block_entries(state: State) -> tuple[list[bytes], list[BlockEntry]]:
    """A snapshot's records around its blocks, and the blocks."""
    others, found = [], []
    for section, data in records(dump(state)):
        if section == "blocks":
            found += msgspec.msgpack.decode(data[4:], type=tuple[str, list[BlockEntry]])[1]
        others.append(data if section != "blocks" else b"")
    return others, found


def test_a_long_submission_is_cut_and_what_is_large_stays_rows() -> None:
    state = State()
    tell(state, submit(2_501))
    assert [block.live for block in state.tables.jobs.blocks.values()] == [1_000, 1_000, 501]
    kilobytes = c.JobGroup(MAIL, [b"x" * 1_024] * 600)
    tell(state, c.SubmitJobs([kilobytes, c.JobGroup(MAIL, [b"x" * 200_000] * 3)]))
    held = [block for block in state.tables.jobs.blocks.values() if block.id > 2_501]
    assert [block.live for block in held] == [256, 256, 88]
    assert max(len(block.payloads) for block in held) <= blocks.BLOCK_BYTES_MAX
    assert list(state.tables.jobs.rows) == [3_102, 3_103, 3_104]


def test_what_is_left_of_a_block_does_not_keep_the_rest_alive() -> None:
    state = State()
    tell(state, c.SubmitJobs([c.JobGroup(MAIL, [b"x" * 100] * 999 + [b"last"])]))
    tell(state, c.CancelJobs(list(range(1, 999))))
    (block,) = state.tables.jobs.blocks.values()
    assert len(block.payloads) <= 104 * blocks.PACK_FACTOR
    assert [job.payload for job in state.tables.jobs.values()] == [b"x" * 100, b"last"]
    tell(state, c.CancelJobs([999, 1_000]))
    assert not state.tables.jobs
    assert not state.tables.jobs.blocks


def test_a_block_is_due_in_one_step_and_then_gives_its_jobs_away_one_by_one() -> None:
    state = State()
    tell(state, WORKER, submit(1_000, at_ms=5_000), submit(1_000, at_ms=5_000))
    assert len(state.timers.wheel) == 2
    tell(state, c.CancelJobs([7, 1_500]))
    effects = tell(state, now_ms=5_000)
    assert [(entry.id, type(entry)) for entry in effects.jobs_ready] == [(1, Block), (1_001, Block)]
    assert len(list(ready_rows(effects))) == 1_998
    effects = tell(state, c.AssignJobs(1, [6, 8, 9, 1_999, 3, 6]), now_ms=5_001)
    jobs = effects.jobs_assigned
    assert [job.payload for job in jobs] == [b"5", b"7", b"8", b"998", b"2"]
    assert {job.timer for job in jobs} == {jobs[0].timer}


def test_a_job_that_nobody_changed_is_shown_without_a_row_of_its_own() -> None:
    state = State()
    tell(state, submit(3, expires_at_ms=9_000, deadline_ms=10_000))
    shown = views.job(state, 2)
    assert shown is not None
    assert (shown.payload, shown.expires_at_ms, shown.deadline_ms) == (b"1", 9_000, 10_000)
    assert views.job(state, 4) is None
    assert not list(state.tables.jobs.all_rows())


def test_a_bound_of_a_block_ends_each_of_its_jobs() -> None:
    state = State()
    tell(state, WORKER, submit(4, expires_at_ms=9_000), submit(4, deadline_ms=9_000))
    tell(state, c.AssignJobs(1, [2, 6]))
    effects = tell(state, now_ms=9_000)
    assert [end.job.id for end in effects.jobs_finished] == [1, 3, 4, 5, 7, 8]
    assert effects.jobs_overdue == [(6, 1)]
    assert sorted(state.tables.jobs) == [2, 6]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 0), ("id", 4), ("spec", 1), ("spec", -1), ("state", 10),
        ("ends", b"\0"), ("ends", 0), ("ends", 2), ("ends", struct.pack("<4I", 0, 2, 1, 3)),
        ("ends", struct.pack("<4I", 1, 1, 2, 3)), ("ends", b""), ("gone", b"\1\1\1"),
        ("gone", b"\0\2\0"), ("gone", b"\0"), ("run_at_ms", 1 << 63),
    ],
)  # fmt: skip
def test_a_block_that_does_not_fit_together_is_refused(field: str, value: object) -> None:
    state = State()
    tell(state, submit(3, at_ms=5_000))
    others, (entry,) = block_entries(state)
    setattr(entry, field, value)
    parts = [data or record("blocks", [entry]) for data in others]
    with pytest.raises(ValueError, match="snapshot"):
        snapshot.load(parts)


def test_a_job_in_two_places_is_refused() -> None:
    state = State()
    tell(state, submit(3), submit(1))
    others, (entry,) = block_entries(state)
    with pytest.raises(ValueError, match="overlap"):
        snapshot.load([data or record("blocks", [entry, entry]) for data in others])
    entry.id = 2  # the row's id is 4
    with pytest.raises(ValueError, match="in a block"):
        snapshot.load([data or record("blocks", [entry]) for data in others])
