"""What becomes of occurrences that nobody launched in time: bounded, in order, all told of."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from cluster.plan import Missed, Plan, Span, Trigger
from cluster.policy.timing.catchup import COUNTED_MAX, Decision, decide
from cluster.policy.timing.records import RECORDS_MAX

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def plan(cron: str = "* * * * *", **fields: Any) -> Plan:
    return Plan((Trigger(cron=cron),), **fields)


def every(every_ms: int, **fields: Any) -> Plan:
    return Plan((Trigger(every_ms=every_ms, anchor_ms=START_MS),), **fields)


def decided(of: Plan, now_ms: int, due_ms: int = START_MS, **options: int) -> tuple[Decision, int]:
    """The decision and in how many steps it was made."""
    work = decide(of, "s", (due_ms, due_ms), now_ms, {}, **options)
    steps = 0
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value, steps
        steps += 1


def counts(decision: Decision) -> Counter[str]:
    found: Counter[str] = Counter()
    for missed in decision.missed:
        found[missed.reason] += missed.count
    return found


def minutes(*numbers: int) -> list[int]:
    return [START_MS + number * MINUTE_MS for number in numbers]


def test_what_is_due_now_is_launched_and_the_next_one_planned() -> None:
    decision, _ = decided(plan(), START_MS + 5)
    assert decision.launches == [START_MS]
    assert (decision.late, decision.missed) == ([], [])
    assert decision.next is not None and decision.next.nominal_ms == START_MS + MINUTE_MS


@pytest.mark.parametrize("catchup", ["skip", "one", "all"])
def test_a_failover_is_not_a_missed_run(catchup: str) -> None:
    decision, _ = decided(every(10_000, catchup=catchup), START_MS + 60_000)
    assert decision.launches == [START_MS + n * 10_000 for n in range(7)]
    assert (decision.late, decision.missed) == ([], [])


def test_skip_runs_only_what_is_on_time() -> None:
    decision, _ = decided(plan(catchup="skip"), START_MS + 10 * MINUTE_MS)
    assert decision.launches == minutes(9, 10)
    assert decision.late == []
    assert decision.missed == [Missed("catchup_skip", START_MS, minutes(8)[0], 9)]


def test_one_is_merged_into_a_run_on_time() -> None:
    decision, _ = decided(plan(), START_MS + 10 * MINUTE_MS)
    assert decision.launches == minutes(9, 10)
    assert decision.late == []
    assert decision.missed == [Missed("merged", START_MS, minutes(8)[0], 9)]


def test_one_runs_the_newest_when_nothing_is_on_time() -> None:
    decision, _ = decided(plan("*/10 * * * *"), START_MS + 25 * MINUTE_MS)
    assert (decision.launches, decision.late) == ([], minutes(20))
    assert decision.missed == [Missed("merged", START_MS, minutes(10)[0], 2)]
    assert decision.next is not None and decision.next.nominal_ms == minutes(30)[0]


def test_all_runs_the_newest_and_records_the_rest() -> None:
    decision, _ = decided(plan(catchup="all", catchup_max=3), START_MS + 10 * MINUTE_MS)
    assert (decision.launches, decision.late) == (minutes(9, 10), minutes(6, 7, 8))
    assert decision.missed == [Missed("bound", START_MS, minutes(5)[0], 6)]


def test_what_is_outside_the_window_is_too_old() -> None:
    of = plan("0 * * * *", catchup="all", catchup_window_ms=2 * HOUR_MS)
    now_ms = START_MS + 10 * HOUR_MS + 5 * MINUTE_MS
    decision, _ = decided(of, now_ms)
    assert decision.late == [START_MS + 9 * HOUR_MS, START_MS + 10 * HOUR_MS]
    assert decision.missed == [Missed("too_old", START_MS, START_MS + 8 * HOUR_MS, 9)]


def test_a_plan_that_is_over_has_no_next_one() -> None:
    decision, _ = decided(plan(end_ms=START_MS + 1), START_MS + 5)
    assert (decision.launches, decision.next) == ([START_MS], None)


def test_a_month_of_minutes_runs_its_bound_and_records_the_rest() -> None:
    now_ms = START_MS + 30 * DAY_MS + 30_000
    decision, steps = decided(plan(catchup="all", catchup_max=100), now_ms)
    assert len(decision.late) == 99 + 1 and len(decision.launches) == 1
    assert decision.late == sorted(decision.late)
    assert counts(decision) == {"bound": 30 * 1440 + 1 - 101}
    assert steps >= 30 * 1440  # others run in between


def test_beyond_its_bound_a_count_says_that_it_is_one() -> None:
    now_ms = START_MS + 30 * DAY_MS + 90_000
    decision, steps = decided(plan(catchup="all", catchup_max=10), now_ms, counted_max=1_000)
    assert decision.late == [now_ms - 30_000 - n * MINUTE_MS for n in range(10, 0, -1)]
    assert [missed.reason for missed in decision.missed] == ["bound", "uncounted", "bound"]
    counted, uncounted, _ = decision.missed
    assert (counted.first_ms, counted.count) == (START_MS, 1_001)
    assert (uncounted.first_ms, uncounted.count) == (counted.last_ms + MINUTE_MS, 1)
    assert steps < 2_000


def test_an_interval_is_counted_exactly_however_long_it_was() -> None:
    now_ms = START_MS + 365 * DAY_MS + 500
    of = every(1_000, catchup="all", catchup_max=5, catchup_window_ms=DAY_MS)
    decision, steps = decided(of, now_ms)
    total = 365 * 86_400 + 1
    assert len(decision.launches) == 60
    assert decision.late == [now_ms - 500 - n * 1_000 for n in range(64, 59, -1)]
    assert counts(decision) == {"too_old": total - 86_400, "bound": 86_400 - 65}
    assert steps < 200


@pytest.mark.parametrize("catchup", ["skip", "one", "all"])
@pytest.mark.parametrize("outage_ms", [59_000, 61_000, 3 * HOUR_MS, 5 * DAY_MS + 1])
@pytest.mark.parametrize("window_ms", [0, HOUR_MS, 365 * DAY_MS])
def test_dividing_an_interval_and_stepping_through_it_agree(
    catchup: str, outage_ms: int, window_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = every(7_000, catchup=catchup, catchup_window_ms=window_ms, catchup_max=4)
    divided, few = decided(of, START_MS + outage_ms)
    monkeypatch.setattr("cluster.policy.timing.catchup.INTERVALS_MIN", 1 << 40)
    stepped, many = decided(of, START_MS + outage_ms)
    assert divided == stepped
    assert few <= many


def test_omitted_ones_are_recorded_once_they_have_passed() -> None:
    dark = Span(START_MS + MINUTE_MS, START_MS + 3 * MINUTE_MS)
    of = plan(blackouts=(dark,))
    first, _ = decided(of, START_MS + 5)
    assert first.missed == []
    assert first.next is not None and first.next.nominal_ms == minutes(3)[0]
    second, _ = decided(of, minutes(3)[0] + 5, minutes(3)[0], accounted_ms=START_MS)
    assert second.missed == [Missed("blackout", *minutes(1, 2), 2)]


def test_a_plan_that_ends_with_omitted_ones_tells_them_at_its_end() -> None:
    dark = Span(START_MS + MINUTE_MS, START_MS + DAY_MS)
    decision, _ = decided(plan(blackouts=(dark,), end_ms=START_MS + HOUR_MS), START_MS + 5)
    assert decision.next is None
    assert decision.missed == [Missed("blackout", *minutes(1, 59), 59)]


def test_records_stay_few_however_reasons_alternate() -> None:
    hours = [Span(START_MS + n * HOUR_MS, START_MS + n * HOUR_MS + 1) for n in range(1, 500)]
    of = plan("*/30 * * * *", blackouts=tuple(hours))
    decision, _ = decided(of, START_MS + 500 * HOUR_MS - 5 * MINUTE_MS)
    assert len(decision.missed) <= RECORDS_MAX
    assert counts(decision) == {"blackout": 499, "merged": 500}


@pytest.mark.parametrize("catchup", ["skip", "one", "all"])
@pytest.mark.parametrize("outage_ms", [5, 61_000, 10 * MINUTE_MS, 7 * HOUR_MS])
def test_everything_is_accounted_for_once(catchup: str, outage_ms: int) -> None:
    dark = tuple(
        Span(START_MS + n * HOUR_MS, START_MS + n * HOUR_MS + 4 * MINUTE_MS) for n in range(1, 9)
    )
    of = plan(catchup=catchup, catchup_max=20, catchup_window_ms=5 * HOUR_MS, blackouts=dark)
    now_ms = START_MS + outage_ms
    decision, _ = decided(of, now_ms, accounted_ms=START_MS - 1)
    total = outage_ms // MINUTE_MS + 1
    told = len(decision.launches) + len(decision.late) + sum(m.count for m in decision.missed)
    newest_omitted = any(span.from_ms <= now_ms < span.until_ms for span in dark)
    assert told == total or (newest_omitted and told < total)
    runs = [*decision.late, *decision.launches]
    assert runs == sorted(set(runs))
    assert decision.next is not None and decision.next.nominal_ms > now_ms


def test_the_bound_on_counting_is_generous() -> None:
    assert COUNTED_MAX >= 69 * 1440  # more than two months of minutes
