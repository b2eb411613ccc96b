"""What is accounted for: everything up to there was launched or written down, nothing behind it is
told again, and nothing before the next occurrence is lost.
"""

from __future__ import annotations

from cluster.machine.apply import apply
from cluster.machine.commands import (
    Batch,
    Command,
    FireSchedule,
    PauseSchedule,
    PutSchedule,
    ResumeSchedule,
)
from cluster.machine.effects import Effects
from cluster.machine.model import JobSpec
from cluster.machine.results import Rejected, Result
from cluster.machine.state import State
from cluster.machine.tables import ScheduleRow
from cluster.plan import Missed, Plan, Trigger

PLAN = Plan((Trigger(every_ms=1_000),))
OTHER = Plan((Trigger(every_ms=2_000),))


def book(state: State, now_ms: int, *commands: Command) -> tuple[list[Result], Effects]:
    return apply(state, Batch(1, now_ms, list(commands)))


def put(next_ms: int, plan: Plan = PLAN, replace: bool = False) -> PutSchedule:
    return PutSchedule(
        "s", JobSpec("work"), b"", "", 0, next_ms, replace, plan=plan, next_nominal_ms=next_ms
    )


def planned(next_ms: int = 5_000) -> tuple[State, ScheduleRow]:
    state = State()
    book(state, 4_500, put(next_ms))
    return state, state.tables.schedules["s"]


def test_every_launch_of_one_decision_is_offered() -> None:
    state, row = planned()
    fire = FireSchedule("s", 5_000, 9_000, 0, 9_000, [5_000, 6_000, 8_000])
    book(state, 8_000, fire)
    nominals = [job.extra.nominal_ms for job in state.tables.jobs.values() if job.extra]
    assert nominals == [5_000, 6_000, 8_000]
    assert (row.accounted_ms, row.executions) == (8_000, 3)


def test_an_equal_plan_goes_on_where_it_was() -> None:
    state, _ = planned()
    book(state, 5_000, FireSchedule("s", 5_000, 9_000, 0, 9_000))
    book(state, 7_000, put(9_000, replace=True))
    assert state.tables.schedules["s"].accounted_ms == 5_000


def test_another_plan_begins_now_and_drops_what_was_due_in_sight_of_all() -> None:
    state, _ = planned()
    _, effects = book(state, 7_000, put(8_000, OTHER, replace=True))
    row = state.tables.schedules["s"]
    assert row.accounted_ms == 7_000
    told = [(event.kind, event.nominal_ms, event.reason) for _, event in effects.schedule_events]
    assert told == [("skipped", 5_000, "changed"), ("changed", 0, "")]
    assert not state.due_schedules


def test_a_pause_ends_where_its_last_record_does() -> None:
    state, row = planned()
    book(state, 5_000, FireSchedule("s", 5_000, 6_000, 0, 6_000))
    book(state, 5_500, PauseSchedule("s"))
    missed = [Missed("paused", 6_000, 8_000, 3)]
    assert book(state, 8_900, ResumeSchedule("s", 8_000, 8_000, missed))[0] == [Rejected.STALE_FIRE]
    book(state, 8_950, ResumeSchedule("s", 9_000, 9_000, missed))
    assert row.accounted_ms == 8_000
