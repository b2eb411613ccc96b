"""The checks of the kill cycles find what they are for."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from chaos.linearizable import Operation, check, unanswered
from chaos.live.asking import Asker
from chaos.live.faults import KINDS, plan
from chaos.live.registers import ABSENT, schedule_model
from chaos.live.submissions import Runs, Submissions, outcome_faults


def did(kind: str, value: str, answer: object, called: float, returned: float) -> Operation:
    return Operation(called, returned, (kind, value), answer)  # type: ignore[arg-type]


def fits(*history: Operation) -> bool:
    return check(history, ABSENT, schedule_model).holds


def test_a_schedule_is_a_register() -> None:
    assert fits(
        did("create", "a", "done", 1, 2),
        did("create", "b", "exists", 3, 4),
        did("write", "n", "done", 5, 6),
        did("read", "", ("a", "n"), 7, 8),
        did("delete", "", "done", 9, 10),
        did("write", "m", "missing", 11, 12),
        did("read", "", ABSENT, 13, 14),
    )


@pytest.mark.parametrize(
    "lie",
    [
        did("create", "b", "done", 5, 6),  # the first was acknowledged, and forgotten
        did("delete", "", "missing", 5, 6),
        did("write", "m", "missing", 5, 6),
        did("read", "", ABSENT, 5, 6),
        did("read", "", ("a", ""), 5, 6),  # stale: the note was acknowledged before
        did("read", "", ("a", "never written"), 5, 6),
    ],
)
def test_a_lost_or_stale_register_is_found(lie: Operation) -> None:
    history = (did("create", "a", "done", 1, 2), did("write", "n", "done", 3, 4))
    assert fits(*history)
    assert not fits(*history, lie)


def test_what_got_no_answer_may_have_happened_or_not() -> None:
    lost = unanswered(1, ("create", "a"))
    assert fits(lost, did("create", "b", "done", 5, 6))
    assert fits(lost, did("create", "b", "exists", 5, 6), did("read", "", ("a", ""), 7, 8))


def ended(payload: str, job_id: str, attempt: int = 1, **changes: Any) -> dict[str, Any]:
    row = {"job_id": job_id, "payload": payload, "attempt": attempt, "status": "completed"}
    return row | {"output": f"{payload} by {attempt}"} | changes


class NoSession:
    """Nothing is asked here."""


@pytest.fixture
def submissions() -> Submissions:
    made = Submissions(Asker(NoSession(), []), 1)  # type: ignore[arg-type]
    made.jobs = {"p": "1", "q": "2"}
    made.asked = {"p": None, "q": None, "r": None}
    return made


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    file = tmp_path / "runs"
    file.write_text("begin 1 1 9\nend 1 1 9\nbegin 2 1 9\nbegin 2 2 9\nend 2 2 9\n")
    return Runs(file)


GOOD = [ended("p", "1"), ended("q", "2", 2)]


def test_a_good_outcome_has_no_faults(submissions: Submissions, runs: Runs) -> None:
    assert outcome_faults(submissions, GOOD, runs) == []
    assert (runs.faults(), runs.repeated) == ([], 0)


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        (GOOD[:1], "is lost"),
        ([*GOOD, ended("p", "1")], "became job"),
        ([GOOD[0], ended("q", "1", 1)], "acknowledged as 2"),
        ([*GOOD, ended("x", "1")], "nobody submitted"),
        ([GOOD[0], ended("q", "2", 2, status="failed")], "did not end"),
        ([GOOD[0], ended("q", "2", 2, output="q by 1")], "did not end"),
        ([GOOD[0], ended("q", "2", 1)], "no worker ran"),
    ],
)
def test_a_bad_outcome_is_found(
    submissions: Submissions, runs: Runs, jobs: list[dict[str, Any]], words: str
) -> None:
    assert any(words in fault for fault in outcome_faults(submissions, jobs, runs))


def test_an_attempt_that_ran_twice_is_found(tmp_path: Path) -> None:
    file = tmp_path / "runs"
    file.write_text("begin 1 1 8\nend 1 1 8\nbegin 1 1 9\nend 1 1 9\n")
    assert Runs(file).faults() == ["attempt 1 of job 1 ran 2 times"]


def test_a_seed_is_a_plan() -> None:
    first, second = list(islice(plan(3), 200)), list(islice(plan(3), 200))
    assert first == second != list(islice(plan(4), 200))
    assert {fault.kind for fault in first} == set(KINDS)
