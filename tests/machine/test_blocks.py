"""Blocks change what a pending job costs, and nothing else: a machine without them is the model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from machine_moves import batch_of
from machine_replicas import Script, book, dump
from test_golden_log import GOLDEN, LOGS, entries_of
from test_properties import scripts

from cluster.machine import blocks, invariants, lifecycle, snapshot, views
from cluster.machine import commands as c
from cluster.machine.commands import encode_batch
from cluster.machine.effects import Effects, ready_rows
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.state import State
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
        [(worker_id, [(j.id, j.attempt, j.payload) for j in jobs])
         for worker_id, jobs in effects.jobs_assigned],
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
