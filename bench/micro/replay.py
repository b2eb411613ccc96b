"""The log of a batch's life, and a state that is as far as one likes."""

from __future__ import annotations

from cluster.machine.apply import apply
from cluster.machine.commands import (
    AssignJobs,
    Batch,
    Command,
    CompleteJobs,
    FailJobs,
    JobFailure,
    JobGroup,
    RegisterWorker,
    SubmitJobs,
)
from cluster.machine.effects import Effects
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.state import State

BATCH = 1_000
NOW_MS = 1_700_000_000_000
WORKER_ID = 1
SPEC = JobSpec("noop")
WORKER = WorkerSpec("w1", 1_000_000, ("default",), ("noop",))
PAYLOAD = b'"' + b"x" * 98 + b'"'


def entry(*commands: Command, now_ms: int = NOW_MS) -> Batch:
    return Batch(1, now_ms, list(commands))


def registration() -> Batch:
    return entry(RegisterWorker(WORKER))


def submissions(jobs: int, run_at_ms: int = 0) -> list[Batch]:
    group = JobGroup(SPEC, [PAYLOAD] * BATCH, run_at_ms)
    return [entry(SubmitJobs([group])) for _ in range(jobs // BATCH)]


def ids(jobs: int) -> list[list[int]]:
    """Of each batch, in the order of submission."""
    return [list(range(first + 1, first + 1 + BATCH)) for first in range(0, jobs, BATCH)]


def assignments(jobs: int) -> list[Batch]:
    return [entry(AssignJobs(WORKER_ID, batch)) for batch in ids(jobs)]


def completions(jobs: int) -> list[Batch]:
    return [entry(CompleteJobs(WORKER_ID, batch, [1] * len(batch))) for batch in ids(jobs)]


def failures(jobs: int, retry_at_ms: int) -> list[Batch]:
    return [
        entry(FailJobs(WORKER_ID, [JobFailure(job, 1, "E", "no", retry_at_ms) for job in batch]))
        for batch in ids(jobs)
    ]


def book(state: State, batches: list[Batch]) -> list[Effects]:
    return [apply(state, batch)[1] for batch in batches]


def state_after(*runs: list[Batch]) -> State:
    """A worker is registered, then everything is booked."""
    state = State()
    book(state, [registration()])
    for run in runs:
        book(state, run)
    return state
