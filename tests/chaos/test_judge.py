"""Every rule of the judge finds the fault planted for it, and none in an honest history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chaos.live.evidence import read_runs, waiting
from chaos.live.judge import RULES, judge
from chaos.live.judge.history import Cancel, History, Omission, Recurrence, Request, Run
from chaos.live.judge.story import tell

NAMES = ("n1", "n2", "n3")


def row(job_id: str, payload: str | None, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"job_id": job_id, "payload": payload, "status": "completed"}
    made |= {"attempt": 1, "reason": None, "error_type": None, "error_message": None}
    made |= {"created_at": "2026-11-21T10:00:00.000Z", "finished_at": "2026-11-21T10:00:01.000Z"}
    made |= {"worker_id": "7", "unique_key": None, "schedule_id": None}
    made |= {"queue": "default", "name": "work", "priority": 5}
    made |= {"scheduled_at": made["created_at"]} | changes
    return {"output": f"by {made['attempt']}"} | made


def event(name: str, attempt: int | None = None) -> dict[str, Any]:
    at = "2026-11-21T10:00:00.500Z"
    return {"at": at, "event": name, "attempt": attempt, "worker_id": "7", "detail": None}


def honest() -> History:
    """One of everything: a plain job, one that stalled, a doomed, a cancelled, two with one unique
    key, a delayed one and a schedule with a gap that is explained."""
    later = {
        "created_at": "2026-11-21T10:00:01.000Z",
        "finished_at": "2026-11-21T10:00:02.000Z",
    }
    rows = [
        row("1", "a/0 work"),
        row("2", "a/1 linger", attempt=2),
        row("3", "b/0 doomed", status="failed", output=None),
        row("4", "c/0 linger", status="cancelled", output=None),
        row("5", "d/0 work", unique_key="u"),
        row("6", "e/0 work", unique_key="u", **later),
        row("7", "f/0 delayed"),
        row("8", None, schedule_id="s"),
        row("9", None, schedule_id="s"),
    ]
    runs = [Run(each, 1, "pid 1", 10.0, 11.0) for each in "134567890" if each != "0"]
    runs += [Run("2", 1, "pid 1", 10.0, 15.0), Run("2", 2, "pid 2", 13.0, 14.0)]
    timelines = {
        each["job_id"]: [event("created"), event("started", 1), event("completed", 1)]
        for each in rows
    }
    timelines["2"] = [event("created"), event("started", 1), event("lost", 1)]
    timelines["2"] += [event("started", 2), event("completed", 2)]
    timelines["3"] = [event("created"), event("started", 1), event("failed", 1)]
    timelines["3"] += [event("dead_letter")]
    timelines["4"] = [event("created"), event("started", 1), event("cancelled", 1)]
    return History(
        requests=[
            Request(9.0, "a", ("a/0 work", "a/1 linger"), (("1", "2"), ("1", "2"))),
            Request(9.0, "b", ("b/0 doomed",), (("3",),)),
            Request(9.0, "c", ("c/0 linger",), (("4",),)),
            Request(9.0, "d", ("d/0 work",), (("5",),), unique_key="u"),
            Request(9.0, "e", ("e/0 work",), (("6",),), unique_key="u"),
            Request(9.0, "f", ("f/0 delayed",), (("7",),), delay_s=1.0),
            Request(9.0, "never answered", ("g/0 work",)),
        ],
        cancels=[Cancel(10.5, "4", "done"), Cancel(10.5, "1", "refused")],
        runs=runs,
        nodes={name: {each["job_id"]: dict(each) for each in rows} for name in NAMES},
        timelines=dict(timelines),
        recurrences={
            "s": Recurrence(
                1000, 1000, 4000, [(1000, "8"), (4000, "9")], [Omission(2000, 3000, 2, "overlap")]
            )
        },
        digests=dict.fromkeys(NAMES, (40, "abc")),
        slots=9,
    )


def everywhere(history: History, job_id: str, **changes: Any) -> None:
    """All nodes agree on the lie."""
    for rows in history.nodes.values():
        rows[job_id] = {**rows[job_id], **changes}


def lose(history: History) -> None:
    for rows in history.nodes.values():
        del rows["1"]


def double(history: History) -> None:
    for rows in history.nodes.values():
        rows["10"] = row("10", "a/0 work")


def run_twice(history: History) -> None:
    history.runs.append(Run("1", 1, "pid 2", 12.0, 13.0))


def end_twice(history: History) -> None:
    history.timelines["1"].append(event("completed", 1))


def forget_an_attempt(history: History) -> None:
    history.timelines["2"][3] = event("started", 3)


def run_beyond_the_end(history: History) -> None:
    history.runs.append(Run("1", 2, "pid 2", 12.0, 13.0))


def complete_without_a_run(history: History) -> None:
    history.runs[:] = [run for run in history.runs if run.job_id != "1"]


def never_fence(history: History) -> None:
    history.timelines["2"][2] = event("running", 1)


def count_the_fenced_result(history: History) -> None:
    everywhere(history, "2", attempt=1, output="by 1")


def answer_otherwise(history: History) -> None:
    history.requests[0] = Request(9.0, "a", ("a/0 work", "a/1 linger"), (("1", "2"), ("1", "3")))


def complete_the_cancelled(history: History) -> None:
    everywhere(history, "4", status="completed", output="by 1")


def cancel_unasked(history: History) -> None:
    everywhere(history, "5", status="cancelled")


def live_together(history: History) -> None:
    everywhere(history, "5", finished_at="2026-11-21T10:00:01.500Z")


def give_the_wrong_job(history: History) -> None:
    history.requests[3] = Request(9.0, "d", ("d/0 work",), (("1",),), unique_key="u")


def begin_early(history: History) -> None:
    next(run for run in history.runs if run.job_id == "7").begun_s = 9.8


def start_at(history: History, job_id: str, second: float) -> None:
    at = f"2026-11-21T10:00:{second:06.3f}Z"
    history.timelines[job_id][1] = event("started", 1) | {"at": at}


def start_out_of_turn(history: History) -> None:
    """8 was created a second after 1 and starts long before it."""
    everywhere(history, "8", created_at="2026-11-21T10:00:01.000Z")
    start_at(history, "8", 1.1)
    start_at(history, "1", 2.2)


def start_the_urgent_last(history: History) -> None:
    """They wait since the same moment."""
    everywhere(history, "8", priority=1)
    start_at(history, "1", 1.5)
    start_at(history, "8", 2.6)


def run_too_many(history: History) -> None:
    history.slots = 8


def launch_twice(history: History) -> None:
    history.recurrences["s"].launched.append((4000, "10"))


def launch_not_at_all(history: History) -> None:
    history.recurrences["s"].launched.pop(0)


def omit_without_a_reason(history: History) -> None:
    history.recurrences["s"].omitted[0] = Omission(2000, 3000, 2, "")


def launch_what_waits(history: History) -> None:
    history.recurrences["s"].waiting.append(4000)


def omit_and_launch(history: History) -> None:
    history.recurrences["s"].launched.append((2000, "10"))


def differ(history: History) -> None:
    history.digests["n2"] = (40, "abd")


def tell_otherwise(history: History) -> None:
    history.nodes["n3"]["1"]["worker_id"] = "8"


def miss_a_job(history: History) -> None:
    del history.nodes["n3"]["8"]


def set_row(job_id: str, **changes: Any) -> Callable[[History], None]:
    return lambda history: everywhere(history, job_id, **changes)


PLANTED: list[tuple[str, str, Callable[[History], None]]] = [
    ("ended once", "lost job 1", lose),
    ("ended once", "has not ended: pending, no_worker",
     set_row("1", status="pending", reason="no_worker")),
    ("ended once", "failed for good", set_row("1", status="failed")),
    ("ended once", "was doomed and is completed", set_row("3", status="completed")),
    ("ended once", "'by 2' of another", set_row("1", output="by 2")),
    ("ended once", "ended more than once", end_twice),
    ("requests", "are both a/0 work", double),
    ("requests", "was answered", answer_otherwise),
    ("requests", "nobody submitted job 1", set_row("1", payload="unheard of")),
    ("attempts", "ran 2 times", run_twice),
    ("attempts", "started attempts [1, 3]", forget_an_attempt),
    ("attempts", "its last is 1", run_beyond_the_end),
    ("attempts", "no worker ran", complete_without_a_run),
    ("fenced", "was never given up", never_fence),
    ("fenced", "attempt 1 counted", count_the_fenced_result),
    ("cancelled", "was cancelled and is completed", complete_the_cancelled),
    ("cancelled", "nobody cancelled job 5", cancel_unasked),
    ("unique", "were alive together", live_together),
    ("unique", "got job 1 of None", give_the_wrong_job),
    ("not early", "0.200 s early", begin_early),
    ("order", "job 1 was due and started 1.100 s after 8", start_out_of_turn),
    ("order", "job 8 was due and started 1.100 s after 1", start_the_urgent_last),
    ("limits", "pid 1 has 8 slots and ran 9 jobs", run_too_many),
    ("occurrences", "launched 4000 2 times", launch_twice),
    ("occurrences", "neither launched 1000", launch_not_at_all),
    ("occurrences", "no reason", omit_without_a_reason),
    ("occurrences", "which is still to wait", launch_what_waits),
    ("occurrences", "1 were to be left out", omit_and_launch),
    ("replicas", "digests differ", differ),
    ("replicas", "tell job 1 differently", tell_otherwise),
    ("replicas", "n3 does not have job 8", miss_a_job),
]  # fmt: skip


def test_an_honest_history_has_no_fault() -> None:
    assert judge(honest()) == []


def test_a_node_that_lost_its_data_need_not_know_what_ended_before() -> None:
    history = honest()
    miss_a_job(history)
    del history.nodes["n3"]["1"]
    assert judge(history) != []
    history.replaced = {"n3"}
    assert judge(history) == []


@pytest.mark.parametrize(("rule", "words", "lie"), PLANTED, ids=[each[1] for each in PLANTED])
def test_a_planted_fault_is_found(rule: str, words: str, lie: Callable[[History], None]) -> None:
    history = honest()
    lie(history)
    found = judge(history)
    assert [fault for fault in found if fault.rule == rule and words in fault.text], found


def test_a_clock_that_is_to_be_believed_excuses_what_it_can() -> None:
    history = honest()
    begin_early(history)
    history.clocks_apart_s = 0.5
    assert judge(history) == []
    history.clocks_apart_s = 0.1
    assert judge(history) != []


def test_who_is_less_urgent_or_was_due_later_may_start_later() -> None:
    history = honest()
    start_the_urgent_last(history)
    everywhere(history, "8", priority=9)
    assert judge(history) == []
    history = honest()
    start_out_of_turn(history)
    everywhere(history, "8", name="another")  # in a lane of its own
    assert judge(history) == []


def test_a_delayed_job_is_not_due_before_its_delay_is_over() -> None:
    history = honest()
    everywhere(history, "8", created_at="2026-11-21T10:00:00.500Z")
    everywhere(history, "7", scheduled_at="2026-11-21T10:00:00.900Z")
    start_at(history, "8", 1.2)
    start_at(history, "7", 2.6)  # created half a second before, due later
    assert judge(history) == []
    everywhere(history, "7", scheduled_at="2026-11-21T10:00:00.100Z")
    assert [fault.rule for fault in judge(history)] == ["order"]


def test_a_delay_counts_from_when_the_request_was_read() -> None:
    """A node that stood still had it in the log two seconds later: it was due all the sooner."""
    history = honest()
    everywhere(history, "1", created_at="2026-11-21T10:00:00.900Z")
    everywhere(
        history, "7",
        created_at="2026-11-21T10:00:02.000Z", scheduled_at="2026-11-21T10:00:00.800Z",
    )  # fmt: skip
    start_at(history, "7", 2.1)
    start_at(history, "1", 3.2)
    assert judge(history) == []


def test_an_occurrence_may_still_wait() -> None:
    history = honest()
    launch_not_at_all(history)
    history.recurrences["s"].waiting.append(1000)
    assert judge(history) == []


def test_every_rule_has_a_planted_fault() -> None:
    assert {rule.RULE for rule in RULES} == {rule for rule, _, _ in PLANTED}


def test_the_story_of_a_job_has_everybody_in_it() -> None:
    history = honest()
    del history.nodes["n3"]["2"]
    told = tell(history, "2")
    for words in (
        "submitted under a, answered 1, 2 and 1, 2",
        "pid 1 ran attempt 1 10.000 to 15.000",
        "lost attempt 1",
        "n1      completed in attempt 2: 'by 2'",
        "n3      does not have it",
    ):
        assert words in told, told


def test_a_worker_that_was_killed_wrote_no_end(tmp_path: Any) -> None:
    file = tmp_path / "runs"
    file.write_text(
        '{"event": "begin", "job": "1", "attempt": 1, "worker": "a", "s": 1.5, "outcome": ""}\n'
        '{"event": "begin", "job": "2", "attempt": 1, "worker": "a", "s": 2.0, "outcome": ""}\n'
        '{"event": "end", "job": "2", "attempt": 1, "worker": "a", "s": 3.0, "outcome": "fails"}\n'
    )
    killed, whole = read_runs(file)
    assert (killed.begun_s, killed.ended_s) == (1.5, None)
    assert (whole.ended_s, whole.outcome) == (3.0, "fails")
    assert read_runs(tmp_path / "none") == []


def test_only_as_many_wait_as_the_schedule_says() -> None:
    told = Recurrence(1000, 1000, 6000, [(1000, "8")], [Omission(2000, 3000, 2, "overlap")])
    assert waiting(told, {1000, 5000}, 0) == []
    assert waiting(told, {1000, 5000}, 1) == [5000]  # the first was launched from the buffer
    assert waiting(told, {1000, 5000}, 2) == [5000, 4000]
