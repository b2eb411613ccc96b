"""Union and exclusion, holidays, windows, blackouts, bounds and jitter."""

from __future__ import annotations

import itertools

import pytest
from timing_helpers import DAY_MS, HOUR_MS, MINUTE_MS, NO_CALENDARS, ahead, at, cron, days, shown
from timing_helpers import steps as walked

from cluster.plan import Plan, Span, Trigger, Window
from cluster.policy.timing import OFF_PEAK, Occurrence, TimingError, check, next_occurrence
from cluster.policy.timing.calendars import group_of
from cluster.policy.timing.days import weekday

BERLIN = "Europe/Berlin"
NOON = 12 * 3600
XMAS = {"de": days("2026-12-25", "2026-12-26", "2027-01-01")}


def text_of(plan: Plan, after: str, count: int) -> list[str]:
    return [
        line.removeprefix("2026-").removesuffix(":00+00:00") for line in shown(plan, after, count)
    ]


def test_intervals_count_from_their_anchor() -> None:
    plan = Plan(
        (Trigger(every_ms=90 * MINUTE_MS, anchor_ms=at("2026-03-28T00:00")),), timezone=BERLIN
    )
    assert ahead(plan, 0, 1) == [at("2026-03-28T00:00")]
    found = ahead(plan, at("2026-03-28T23:00"), 4)
    assert [b - a for a, b in itertools.pairwise(found)] == [90 * MINUTE_MS] * 3


def test_times_end() -> None:
    plan = Plan((Trigger(at_ms=(5_000, 7_000)),))
    assert ahead(plan, 0, 9) == [5_000, 7_000]
    assert next_occurrence(plan, "s", 7_000, NO_CALENDARS) is None


def test_triggers_are_united_and_coinciding_ones_are_one() -> None:
    plan = Plan(
        (
            Trigger(cron="0 */2 * * *"),
            Trigger(cron="0 */3 * * *"),
            Trigger(at_ms=(at("2026-05-01T01:00"),)),
        )
    )
    assert text_of(plan, "2026-05-01T00:00", 5) == [
        f"05-01T{hour:02}:00" for hour in (1, 2, 3, 4, 6)
    ]


def test_exceptions_are_taken_out_and_told() -> None:
    plan = Plan(
        (Trigger(cron="0 * * * *"),),
        unless=(Trigger(cron="0 2-3 * * *"), Trigger(at_ms=(at("2026-05-01T05:00"),))),
    )
    assert text_of(plan, "2026-05-01T00:00", 6) == [
        "05-01T01:00",
        "excluded 2026-05-01T02:00",
        "excluded 2026-05-01T03:00",
        "05-01T04:00",
        "excluded 2026-05-01T05:00",
        "05-01T06:00",
    ]
    assert ahead(plan, at("2026-05-01T01:00"), 1) == [at("2026-05-01T04:00")]


@pytest.mark.parametrize(
    ("on_holiday", "expected"),
    [
        ("run", ["24", "25", "26", "27"]),
        ("skip", ["24", "holiday 25", "holiday 26", "27"]),
        ("next", ["24", "27", "28", "29"]),
        ("previous", ["24", "27", "28", "29"]),
    ],
)
def test_holidays(on_holiday: str, expected: list[str]) -> None:
    plan = cron("0 9 * * *", BERLIN, calendars=("de",), on_holiday=on_holiday)
    found = shown(plan, "2026-12-24T00:00", 4, XMAS)
    assert found == [
        f"{'holiday ' if text.startswith('holiday') else ''}2026-12-{text[-2:]}T09:00:00+01:00"
        for text in expected
    ]


@pytest.mark.parametrize(
    ("on_holiday", "day"), [("next", "2026-12-28"), ("previous", "2026-12-24")]
)
def test_a_moved_run_keeps_its_time_of_day_and_its_reason(on_holiday: str, day: str) -> None:
    plan = cron("15 9 25 12 *", BERLIN, calendars=("de",), on_holiday=on_holiday)
    (step,) = walked(plan, "2026-12-01T00:00", 1, XMAS)
    assert isinstance(step, Occurrence)
    assert step.nominal_ms == at(f"{day}T09:15+01:00")
    assert [note.text for note in step.notes] == [f"2026-12-25 is a holiday, 09:15 runs on {day}"]


@pytest.mark.parametrize("on_holiday", ["next", "previous"])
def test_moved_runs_stay_in_order_wherever_one_starts(on_holiday: str) -> None:
    plan = cron("0 */5 * * *", BERLIN, calendars=("de",), on_holiday=on_holiday)
    odd = Plan(
        (*plan.triggers, Trigger(cron="30 7 25 12 *")),
        timezone=BERLIN,
        calendars=("de",),
        on_holiday=on_holiday,
    )
    whole = [step.nominal_ms for step in walked(odd, "2026-12-22T00:00", 60, XMAS)]
    assert whole == sorted(set(whole))
    for position, after_ms in enumerate(whole[:40]):
        step = next_occurrence(odd, "s", after_ms, XMAS)
        assert step is not None
        assert step.nominal_ms == whole[position + 1]


def test_a_calendar_of_all_days_leaves_nothing() -> None:
    everything = {"de": frozenset(range(20_000, 40_000))}
    plan = cron("0 9 * * *", calendars=("de",), on_holiday="next", end_ms=at("2026-12-01T00:00"))
    with pytest.raises(TimingError, match="the calendars") as caught:
        check(plan, "s", at("2026-01-01T00:00"), everything)
    assert caught.value.field == "/on_holiday"


def test_groups_of_days_follow_each_other_without_a_gap() -> None:
    holidays = frozenset({20_003, 20_004, 20_008, 20_011, 20_012, 20_013})
    for on_holiday in ("next", "previous"):
        day = group_of(20_000, holidays, on_holiday).first
        while day < 20_030:
            group = group_of(day, holidays, on_holiday)
            members = range(group.first, group.last + 1)
            assert group.first == day
            assert all(group_of(member, holidays, on_holiday) == group for member in members)
            assert [d for d in members if d not in holidays and weekday(d) < 5] == [group.target]
            day = group.last + 1


def test_a_moved_run_lands_on_no_weekend_but_what_is_planned_there_stays() -> None:
    monday = {"c": days("2027-05-17")}
    before = cron("0 9 * * *", calendars=("c",), on_holiday="previous")
    found = shown(before, "2027-05-14T00:00", 4, monday)
    assert [line[8:10] for line in found] == ["14", "15", "16", "18"]
    friday = {"c": days("2027-05-14")}
    after = cron("0 9 * * fri", calendars=("c",), on_holiday="next")
    assert [line[8:10] for line in shown(after, "2027-05-13T00:00", 2, friday)] == ["17", "21"]


def test_outside_its_windows_a_run_waits_or_is_skipped() -> None:
    window = Window(22 * 3600, 6 * 3600)
    assert window == OFF_PEAK
    defer = cron("0 */5 * * *", BERLIN, windows=(window,))
    assert [line[8:13] for line in shown(defer, "2026-05-01T00:00", 6)] == [
        *("01T05", "01T22", "02T00", "02T05", "02T22", "03T00")
    ]
    skip = cron("0 */5 * * *", BERLIN, windows=(window,), outside="skip")
    assert [line.split()[0][:6] for line in shown(skip, "2026-05-01T00:00", 5)] == [
        *("2026-0", "window", "window", "window", "2026-0")
    ]


def test_what_waits_for_an_opening_is_one_run_with_the_first_reason() -> None:
    plan = cron("* * * * *", windows=(Window(NOON, NOON + 120, (0,)),))
    first, second, third = walked(plan, "2026-05-01T00:00", 3)
    assert isinstance(first, Occurrence)
    assert first.nominal_ms == at("2026-05-04T12:00")
    assert [note.text for note in first.notes] == [
        "12:02 on 2026-04-27 is outside the windows, runs at 12:00 on 2026-05-04"
    ]
    assert second.nominal_ms == at("2026-05-04T12:01")
    assert third.nominal_ms == at("2026-05-11T12:00")


def test_a_waiting_run_is_found_from_any_instant_before_the_opening() -> None:
    plan = cron("0 7 * * *", windows=(OFF_PEAK,))
    for hour in range(6, 22):
        assert ahead(plan, at(f"2026-05-01T{hour:02}:30"), 1) == [at("2026-05-01T22:00")]
    assert ahead(plan, at("2026-05-01T22:00"), 1) == [at("2026-05-02T22:00")]


def test_a_weekday_of_a_window_is_that_of_its_opening() -> None:
    plan = cron("0 * * * *", windows=(Window(22 * 3600, 2 * 3600, (4,)),), outside="skip")
    runs = [line for line in shown(plan, "2026-05-01T12:00", 20) if not line.startswith("w")]
    assert [line[8:13] for line in runs] == ["01T22", "01T23", "02T00", "02T01"]


def test_blackouts_take_runs_out() -> None:
    plan = cron(
        "0 * * * *",
        blackouts=(Span(at("2026-05-01T02:00"), at("2026-05-01T04:00")),),
        blackout_windows=(Window(5 * 3600, 6 * 3600),),
    )
    assert text_of(plan, "2026-05-01T00:30", 6) == [
        "05-01T01:00",
        "blackout 2026-05-01T02:00",
        "blackout 2026-05-01T03:00",
        "05-01T04:00",
        "blackout 2026-05-01T05:00",
        "05-01T06:00",
    ]


def test_a_year_of_blackout_is_jumped_over() -> None:
    span = Span(at("2026-01-01T00:00"), at("2027-01-01T00:00"))
    plan = cron("* * * * * *", blackouts=(span,))
    assert ahead(plan, at("2026-01-01T00:00"), 1) == [span.until_ms]


def test_nothing_before_the_start_nor_from_the_end_on() -> None:
    plan = cron("0 * * * *", start_ms=at("2026-05-01T03:00"), end_ms=at("2026-05-01T05:00"))
    assert ahead(plan, 0, 9) == [at("2026-05-01T03:00"), at("2026-05-01T04:00")]


def test_jitter_is_the_same_everywhere_and_keeps_the_order() -> None:
    plan = cron("* * * * *", jitter_ms=10 * MINUTE_MS)
    found = [step for step in walked(plan, "2026-05-01T00:00", 50) if isinstance(step, Occurrence)]
    fires = [step.fire_ms for step in found]
    assert fires == sorted(fires)
    assert all(0 <= step.fire_ms - step.nominal_ms <= MINUTE_MS for step in found)
    for step in found:
        assert next_occurrence(plan, "s", step.nominal_ms - 1, NO_CALENDARS) == step


def test_jitter_spreads_schedules() -> None:
    plan = cron("0 0 * * *", jitter_ms=HOUR_MS)
    fires = set()
    for number in range(300):
        step = next_occurrence(plan, f"schedule {number}", at("2026-05-01T12:00"), NO_CALENDARS)
        assert step is not None
        fires.add((step.fire_ms - step.nominal_ms) // (10 * MINUTE_MS))
    assert fires == set(range(6))


DAILY = Trigger(cron="0 9 * * *")


@pytest.mark.parametrize(
    ("plan", "field", "part"),
    [
        (Plan(()), "/schedule", "nothing says when"),
        (Plan((Trigger(),)), "/schedule", "exactly one of"),
        (Plan((Trigger(cron="* * * * *", every_ms=5),)), "/schedule", "exactly one of"),
        (Plan((DAILY, Trigger(cron="61 * * * *"))), "/any_of/1/schedule", "'61'"),
        (Plan((DAILY,), unless=(Trigger(cron="x"),)), "/except/0/schedule", "1 fields"),
        (Plan((DAILY,), unless=(DAILY,), end_ms=at("2030-01-01")), "/except", "the exceptions"),
        (Plan((DAILY,), timezone="Europe/Berlim"), "/timezone", "like Europe/Berlin"),
        (Plan((DAILY,), timezone="../../etc/passwd"), "/timezone", "no time zone"),
        (Plan((DAILY,), timezone=""), "/timezone", "no time zone"),
        (Plan((DAILY,), gap="never"), "/dst/gap", "run, skip, shift"),
        (Plan((DAILY,), repeat="third"), "/dst/overlap", "first, second, both"),
        (Plan((DAILY,), catchup="some"), "/catchup", "skip, one, all"),
        (Plan((DAILY,), catchup_max=0), "/catchup_max_runs", "1 to"),
        (Plan((DAILY,), outside="wait"), "/outside_window", "defer, skip"),
        (Plan((DAILY,), on_holiday="next"), "/on_holiday", "no calendar"),
        (Plan((DAILY,), calendars=("fr",)), "/calendars/0", "no calendar 'fr' (de)"),
        (Plan((DAILY,), windows=(Window(60, 60),)), "/windows/0/to", "never opens"),
        (Plan((DAILY,), windows=(Window(90_000, 60),)), "/windows/0/from", "opens between"),
        (Plan((DAILY,), windows=(Window(0, 60, (7,)),)), "/windows/0/weekdays", "mon tue"),
        (
            Plan((DAILY,), windows=(Window(0, 60),), outside="skip", end_ms=at("2030-01-01")),
            "/windows",
            "the windows",
        ),
        (
            Plan((DAILY,), blackout_windows=(Window(0, DAY_MS // 1000),), end_ms=at("2030-01-01")),
            "/blackouts",
            "the blackouts",
        ),
        (Plan((DAILY,), blackouts=(Span(9, 9),)), "/blackouts/0/to", "ends before"),
        (Plan((DAILY,), start_ms=9_000, end_ms=9_000), "/end_at", "not after start_at"),
        (Plan((DAILY,), end_ms=5), "/end_at", "has passed"),
        (Plan((Trigger(at_ms=(5,)),)), "/at", "has passed"),
        (Plan((DAILY,), jitter_ms=DAY_MS + 1), "/jitter_seconds", "at most"),
    ],
)
def test_a_bad_plan_is_refused_with_its_field(plan: Plan, field: str, part: str) -> None:
    with pytest.raises(TimingError) as caught:
        check(plan, "s", at("2026-11-21T00:00"), XMAS)
    assert caught.value.field == field
    assert part in str(caught.value)


def test_a_checked_plan_is_canonical() -> None:
    plan = Plan(
        (Trigger(at_ms=(9_000, 5_000, 9_000)),),
        windows=(Window(0, 60, (6, 0, 1, 2, 3, 4, 5)),),
        blackouts=(Span(50, 60), Span(10, 20), Span(15, 30)),
        calendars=("de", "de"),
    )
    checked = check(plan, "s", 0, XMAS)
    assert checked.triggers[0].at_ms == (5_000, 9_000)
    assert checked.windows == (Window(0, 60),)
    assert checked.blackouts == (Span(10, 30), Span(50, 60))
    assert checked.calendars == ("de",)
    assert check(checked, "s", 0, XMAS) == checked
