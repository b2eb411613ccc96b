"""Cron: vectors worked out by hand, refusals, and stepping minute by minute as the oracle."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.policy import cron
from cluster.policy.cron import CronError, catch_up, next_every_ms, next_fire_ms, validate

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("* * * * *", "2026-11-21T10:00:00", "2026-11-21T10:01:00"),
        ("* * * * *", "2026-11-21T10:00:59.999", "2026-11-21T10:01:00"),
        ("*/5 * * * *", "2026-11-21T10:04:59.999", "2026-11-21T10:05:00"),
        ("*/5 * * * *", "2026-11-21T10:05:00", "2026-11-21T10:10:00"),
        ("*/7 * * * *", "2026-11-21T10:56:00", "2026-11-21T11:00:00"),
        ("30 4 * * *", "2026-11-21T04:30:00", "2026-11-22T04:30:00"),
        ("0 0 1 1 *", "2026-11-21T00:00:00", "2027-01-01T00:00:00"),
        ("0 12 * * mon-fri", "2026-11-20T12:00:00", "2026-11-23T12:00:00"),
        ("0 0 * * 7", "2026-11-21T00:00:00", "2026-11-22T00:00:00"),
        ("0 0 * * 0", "2026-11-21T00:00:00", "2026-11-22T00:00:00"),
        ("15,45 9-17/4 * * *", "2026-11-21T09:45:00", "2026-11-21T13:15:00"),
        ("0 0 29 2 *", "2026-11-21T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00:00", "2104-02-29T00:00:00"),
        ("0 0 13 * fri", "2026-11-21T00:00:00", "2026-11-27T00:00:00"),  # either field, as Vixie
        ("0 0 31 * *", "2026-11-21T00:00:00", "2026-12-31T00:00:00"),
        ("0 0 * feb,apr *", "2026-04-30T00:00:00", "2027-02-01T00:00:00"),
        ("0 0 l * *", "2027-02-01T00:00:00", "2027-02-28T00:00:00"),
        ("59 23 31 12 *", "2026-12-31T23:59:00", "2027-12-31T23:59:00"),
        ("@hourly", "2026-11-21T10:00:00", "2026-11-21T11:00:00"),
        ("@daily", "2026-11-21T10:00:00", "2026-11-22T00:00:00"),
        ("@weekly", "2026-11-21T10:00:00", "2026-11-22T00:00:00"),
        ("@monthly", "2026-11-21T10:00:00", "2026-12-01T00:00:00"),
        ("@YEARLY", "2026-11-21T10:00:00", "2027-01-01T00:00:00"),
    ],
)
def test_next_fire(expression: str, after: str, expected: str) -> None:
    assert next_fire_ms(expression, at(after)) == at(expected)


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("", ["has 0 fields", "minute hour day-of-month month day-of-week"]),
        ("* * * *", ["has 4 fields", "write five"]),
        ("0 * * * * *", ["has 6 fields", "every_seconds"]),
        ("0 0 1 1 * 2030 5", ["has 7 fields"]),
        ("60 * * * *", ["'60' is not possible for the minute (0-59)"]),
        ("* 24 * * *", ["'24' is not possible for the hour (0-23)"]),
        ("* * 0 * *", ["'0'", "day of month (1-31)"]),
        ("* * * 13 *", ["'13'", "month (1-12"]),
        ("* * * * 8", ["'8'", "day of week (0-7"]),
        ("* * * * funday", ["'funday'", "day of week"]),
        ("*/0 * * * *", ["'*/0'", "minute"]),
        ("1,,2 * * * *", ["'1,,2'", "minute"]),
        ("R * * * *", ["'R'", "at random", "write the value"]),
        ("r(0-10) * * * *", ["at random"]),
        ("H/15 * * * *", ["at random"]),
        ("5,h * * * *", ["at random"]),
        ("@reboot", ["'@reboot'", "@hourly, @daily, @weekly, @monthly, @yearly"]),
        ("0 0 31 2 *", ["never fires", "day 31 does not exist in month 2"]),
        ("0 0 30 feb *", ["never fires", "day 30", "month feb"]),
        ("0 0 31 4,6,9,11 *", ["never fires", "day 31"]),
        ("\u0660 * * * *", ["beyond ASCII"]),
        ("*\u00a0* * * *", ["beyond ASCII"]),
        ("0" * 257, ["257 characters", "at most 256"]),
    ],
)
def test_a_refusal_is_one_sentence_with_the_fix(expression: str, parts: list[str]) -> None:
    for check in (validate, lambda text: str(next_fire_ms(text, 0))):
        with pytest.raises(CronError) as caught:
            check(expression)
        for part in parts:
            assert part in str(caught.value)
        assert "\n" not in str(caught.value)


def test_validate_tidies_up_blanks_and_keeps_names() -> None:
    assert validate("  */5\t*   * * *\n") == "*/5 * * * *"
    assert validate(" @Daily ") == "@daily"


def test_an_answer_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(CronError, match="no fire after"):
        next_fire_ms("* * * * *", at("9999-12-31T23:59:00"))


@st.composite
def simple_fields(draw: st.DrawFn, low: int, high: int) -> tuple[str, set[int]]:
    """A field and the values it stands for, computed here and not by the code under test."""
    kind = draw(st.sampled_from(["star", "step", "value", "list", "range", "range step"]))
    first = draw(st.integers(low, high))
    last = draw(st.integers(first, high))
    step = draw(st.integers(1, max(1, (high - low) // 2)))
    match kind:
        case "star":
            return "*", set(range(low, high + 1))
        case "step":
            return f"*/{step}", set(range(low, high + 1, step))
        case "value":
            return str(first), {first}
        case "list":
            return f"{first},{last}", {first, last}
        case "range" if first < last:
            return f"{first}-{last}", set(range(first, last + 1))
        case "range step" if first < last:
            return f"{first}-{last}/{step}", set(range(first, last + 1, step))
    return str(last), {last}


@given(
    minute=simple_fields(0, 59),
    hour=simple_fields(0, 23),
    weekday=st.one_of(st.just(("*", set(range(7)))), simple_fields(0, 6)),
    after_ms=st.integers(at("1999-12-01T00:00:00"), at("2101-01-01T00:00:00")),
)
@settings(max_examples=150, deadline=None)
def test_agrees_with_stepping_minute_by_minute(
    minute: tuple[str, set[int]],
    hour: tuple[str, set[int]],
    weekday: tuple[str, set[int]],
    after_ms: int,
) -> None:
    expression = f"{minute[0]} {hour[0]} * * {weekday[0]}"
    expected_ms = (after_ms // MINUTE_MS + 1) * MINUTE_MS
    while True:
        moment = datetime.fromtimestamp(expected_ms / 1000, UTC)
        if moment.isoweekday() % 7 not in weekday[1]:
            expected_ms += DAY_MS - expected_ms % DAY_MS
        elif moment.hour not in hour[1]:
            expected_ms += HOUR_MS - expected_ms % HOUR_MS
        elif moment.minute not in minute[1]:
            expected_ms += MINUTE_MS
        else:
            break
    assert next_fire_ms(expression, after_ms) == expected_ms


@given(
    day=st.integers(1, 31),
    month=simple_fields(1, 12),
    after_ms=st.integers(at("2000-01-01T00:00:00"), at("2090-01-01T00:00:00")),
)
@settings(max_examples=100, deadline=None)
def test_agrees_with_stepping_day_by_day(
    day: int, month: tuple[str, set[int]], after_ms: int
) -> None:
    expression = f"0 0 {day} {month[0]} *"
    longest = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
    if all(day > longest.get(number, 31) for number in month[1]):
        with pytest.raises(CronError, match="never fires"):
            next_fire_ms(expression, after_ms)
        return
    expected_ms = (after_ms // DAY_MS + 1) * DAY_MS
    while True:
        moment = datetime.fromtimestamp(expected_ms / 1000, UTC)
        if moment.day == day and moment.month in month[1]:
            break
        expected_ms += DAY_MS
    assert next_fire_ms(expression, after_ms) == expected_ms


def test_a_shared_expression_gives_independent_answers() -> None:
    late = next_fire_ms("0 * * * *", at("2030-01-01T00:00:00"))
    early = next_fire_ms("0 * * * *", at("2020-01-01T00:00:00"))
    assert (early, late) == (at("2020-01-01T01:00:00"), at("2030-01-01T01:00:00"))
    assert next_fire_ms("0 * * * *", at("2030-01-01T00:00:00")) == late


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    cron._parsed.cache_clear()
    yield
    os.environ.pop("TZ", None)
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("new_york")
def test_the_zone_of_the_machine_does_not_matter() -> None:
    # 2026-03-08 02:30 does not exist in New York, 2026-11-01 01:30 exists twice.
    assert next_fire_ms("30 2 * * *", at("2026-03-08T00:00:00")) == at("2026-03-08T02:30:00")
    assert next_fire_ms("30 1 * * *", at("2026-11-01T01:30:00")) == at("2026-11-02T01:30:00")
    assert next_fire_ms("0 * * * *", at("2026-11-01T05:30:00")) == at("2026-11-01T06:00:00")


def test_catch_up_makes_up_for_recent_runs_only() -> None:
    now_ms = at("2026-11-21T12:00:30")
    five = "*/5 * * * *"
    missed_one = catch_up(five, at("2026-11-21T11:50:00"), now_ms, 300_000)
    assert missed_one == at("2026-11-21T12:00:00")
    assert catch_up(five, at("2026-11-21T11:50:00"), now_ms, HOUR_MS) == at("2026-11-21T11:55:00")
    assert catch_up(five, at("2026-11-19T00:00:00"), now_ms, 0) == at("2026-11-21T12:05:00")


def test_catch_up_includes_the_edge_of_its_window() -> None:
    now_ms = at("2026-11-21T12:05:00")
    assert catch_up("* * * * *", 0, now_ms, 300_000) == at("2026-11-21T12:00:00")
    assert catch_up("* * * * *", 0, now_ms + 1, 300_000) == at("2026-11-21T12:01:00")


def test_catch_up_never_repeats_a_fire() -> None:
    now_ms = at("2026-11-21T12:00:00")
    assert catch_up("* * * * *", now_ms, now_ms, HOUR_MS) == at("2026-11-21T12:01:00")


@given(
    anchor_ms=st.integers(0, 10**13),
    every_ms=st.integers(1, 10**9),
    after_ms=st.integers(0, 10**13),
)
def test_intervals_keep_their_anchor(anchor_ms: int, every_ms: int, after_ms: int) -> None:
    next_ms = next_every_ms(anchor_ms, every_ms, after_ms)
    assert next_ms > after_ms
    assert (next_ms - anchor_ms) % every_ms == 0
    assert next_ms == anchor_ms or anchor_ms < next_ms <= after_ms + every_ms


def test_intervals_start_at_their_anchor() -> None:
    assert next_every_ms(1000, 300, 999) == 1000
    assert next_every_ms(1000, 300, 1000) == 1300
    with pytest.raises(CronError, match="at least 1 ms"):
        next_every_ms(0, 0, 5)
