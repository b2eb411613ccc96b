"""Long stretches that do not run: jumped over, the same as stepped through, never an end."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import pytest

from cluster.plan import Plan, Span, Trigger, Window
from cluster.policy.timing import Occurrence, TimingError, check, next_occurrence, search, walk
from cluster.policy.timing.catchup import Decision, decide
from cluster.policy.timing.errors import GaveUp

EVERY_SECOND = Trigger(cron="* * * * * *")
DAY_MS = 86_400_000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def run(work: Generator[None, None, Any]) -> tuple[Any, int]:
    steps = 0
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value, steps
        steps += 1


DARK_MAY = Span(at("2026-05-01"), at("2026-06-01"))
DAILY_DARK = (Window(0, 23 * 3600), Window(22 * 3600, 86_400))


@pytest.mark.parametrize(
    ("plan", "after", "first"),
    [
        (Plan((EVERY_SECOND,), blackouts=(DARK_MAY,)), "2026-05-01", "2026-06-01"),
        (
            Plan((EVERY_SECOND,), unless=(Trigger(cron="* * * 2-12 *"),)),
            "2026-02-03T12:00:30",
            "2026-02-03T12:00:31",
        ),
        (
            Plan((EVERY_SECOND,), unless=(Trigger(cron="* * * * 2-12 *"),)),
            "2026-02-03T12:00",
            "2027-01-01",
        ),
        (
            Plan((Trigger(every_ms=1000),), unless=(Trigger(cron="* * * * 2-12 *"),)),
            "2026-02-03T12:00",
            "2027-01-01",
        ),
        (
            Plan((Trigger(cron="*/5 * * * *"),), unless=(Trigger(cron="* * * * mon-sat"),)),
            "2026-05-04T09:00",
            "2026-05-10",
        ),
    ],
)
def test_a_long_stretch_without_runs_takes_few_steps(plan: Plan, after: str, first: str) -> None:
    found, steps = run(search(plan, "s", at(after), {}))
    assert found is not None and found.nominal_ms == at(first)
    assert steps < 2_000
    assert check(plan, "s", at(after), {}) == plan


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "America/Santiago"])
@pytest.mark.parametrize(
    "fields",
    [
        {"unless": (Trigger(cron="* * * * mon-fri"), Trigger(cron="*/2 0-12 * * *"))},
        {"blackout_windows": (Window(3600, 79_200), Window(7200, 1800, (0, 3, 6)))},
        {
            "unless": (Trigger(cron="* * * * sat"),),
            "calendars": ("work",),
            "on_holiday": "next",
        },
        {"unless": (Trigger(cron="* * * * sun"),), "windows": (Window(0, 3600),)},
    ],
)
def test_jumps_find_what_steps_find(timezone: str, fields: dict[str, Any]) -> None:
    """Over both changes of the clocks, in March or April and in September or October."""
    triggers = (Trigger(cron="*/7 * * * *"), Trigger(cron="30 1-3 * * *"))
    plan = Plan(triggers, timezone=timezone, **fields)
    calendars = {"work": frozenset(range(20_540, 20_544))}
    for start in ("2026-03-27", "2026-04-03", "2026-09-04", "2026-10-23"):
        after_ms, until_ms = at(start), at(start) + 4 * DAY_MS
        stepped: list[int] = []
        for what in walk(plan, "s", after_ms, calendars):
            if what.nominal_ms >= until_ms:
                break
            if isinstance(what, Occurrence):
                stepped.append(what.nominal_ms)
        jumped: list[int] = []
        while True:
            try:
                found = next_occurrence(plan, "s", after_ms, calendars)
            except GaveUp:
                break
            if found is None or found.nominal_ms >= until_ms:
                break
            jumped.append(after_ms := found.nominal_ms)
        assert jumped == stepped


def test_the_last_run_before_a_long_blackout_is_launched_at_once() -> None:
    due_ms = DARK_MAY.from_ms - 1000
    for jitter_ms in (0, 500):
        plan = Plan((EVERY_SECOND,), blackouts=(DARK_MAY,), jitter_ms=jitter_ms)
        work = decide(plan, "s", (due_ms, due_ms + jitter_ms), due_ms + jitter_ms + 5, {})
        decision, steps = run(work)
        assert isinstance(decision, Decision)
        assert decision.launches == [due_ms]
        assert decision.next is not None and decision.next.nominal_ms == DARK_MAY.until_ms
        assert steps < 100


def test_a_step_before_a_long_blackout_is_small_with_jitter() -> None:
    plan = Plan((EVERY_SECOND,), blackouts=(DARK_MAY,), jitter_ms=500)
    steps = walk(plan, "s", DARK_MAY.from_ms - 1001, {})
    first = next(steps)
    assert isinstance(first, Occurrence) and first.nominal_ms == DARK_MAY.from_ms - 1000
    assert next(steps).nominal_ms == DARK_MAY.from_ms


def test_giving_up_is_not_an_end() -> None:
    """Instants at fractions of a second, taken out one by one: nobody can jump over them."""
    every = Trigger(every_ms=500, anchor_ms=250)
    plan = Plan((every, Trigger(at_ms=(at("2030-01-01"),))), unless=(every,))
    with pytest.raises(GaveUp):
        next_occurrence(plan, "s", at("2026-01-01"), {})
    with pytest.raises(TimingError, match="none of the next 100000 instants") as refused:
        check(plan, "s", at("2026-01-01"), {})
    assert refused.value.field == "/except"


def test_what_is_taken_out_for_fifty_years_never_fires() -> None:
    plan = Plan((Trigger(cron="0 12 * * *"),), unless=(Trigger(cron="* * * * *"),))
    found, steps = run(search(plan, "s", at("2026-01-01"), {}))
    assert found is None
    assert steps < 20_000


def test_all_of_a_daily_blackout_is_refused() -> None:
    with pytest.raises(TimingError) as refused:
        check(Plan((EVERY_SECOND,), blackout_windows=DAILY_DARK), "s", at("2026-01-01"), {})
    assert refused.value.field == "/blackouts"
