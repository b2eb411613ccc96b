"""Each mutant breaks the promise that it is said to break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.live import mutants
from cluster.machine import commands as c
from cluster.machine import views
from cluster.machine.apply import apply
from cluster.machine.levels import HIGHEST_LEVEL
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.registry import REDUCERS
from cluster.machine.state import State


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    honest = dict(REDUCERS)
    yield
    REDUCERS.update(honest)


def book(state: State, *commands: c.Command) -> None:
    apply(state, c.Batch(1, state.now_ms + 1, list(commands)))


def submit(key: str = "") -> c.SubmitJobs:
    return c.SubmitJobs([c.JobGroup(JobSpec("send", max_retries=5), [b"null"])], key, 1, 60_000)


@pytest.mark.parametrize(
    "late", [c.CompleteJobs(0, [1], [1]), c.CompleteMany([0], [1], [1], [1])], ids=["one", "many"]
)
@pytest.mark.parametrize(("is_mutant", "is_taken"), [(False, False), (True, True)])
def test_results_of_any_attempt_are_taken(is_mutant: bool, is_taken: bool, late: c.Command) -> None:
    if is_mutant:
        mutants.any_attempt()
    state = State()
    book(state, c.RaiseLevel(HIGHEST_LEVEL))
    book(state, c.RegisterWorker(WorkerSpec("w", 1, ("default",), ("send",))), submit())
    book(state, c.AssignJobs(1, [1]), c.ReleaseJobs(1, [1], [1]), c.AssignJobs(1, [1]))
    book(state, late)
    assert (views.job(state, 1) is None) == is_taken  # what has ended is in the history


@pytest.mark.parametrize(("is_mutant", "jobs"), [(False, 1), (True, 2)])
def test_keys_are_forgotten(is_mutant: bool, jobs: int) -> None:
    if is_mutant:
        mutants.no_keys()
    state = State()
    book(state, submit("key"))
    book(state, submit("key"))
    assert views.job(state, jobs) is not None
    assert views.job(state, jobs + 1) is None
