"""What expressions mean and which are refused, in UTC: vectors worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, pairwise
from random import Random

import pytest
import random_crons
from croniter import croniter
from timing_helpers import NO_CALENDARS, ahead, at, cron, shown

from cluster.plan import Plan, Trigger
from cluster.policy.timing import TimingError, check, explain
from cluster.policy.timing.days import _next_other, next_day
from cluster.policy.timing.parse import parse

NOW_MS = at("2026-11-21T10:00")


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("* * * * *", "2026-11-21T10:00:59.999", "2026-11-21T10:01:00"),
        ("*/7 * * * *", "2026-11-21T10:56:00", "2026-11-21T11:00:00"),
        ("5/15 * * * *", "2026-11-21T10:56:00", "2026-11-21T11:05:00"),
        ("59/15 * * * *", "2026-11-21T10:56:00", "2026-11-21T10:59:00"),
        ("15,45 9-17/4 * * *", "2026-11-21T09:45:00", "2026-11-21T13:15:00"),
        ("0 22-2 * * *", "2026-11-21T23:00:00", "2026-11-22T00:00:00"),
        ("30 8 * * *", "2026-11-21T08:30:00.500", "2026-11-22T08:30:00"),
        ("0 12 * * mon-fri", "2026-11-20T12:00:00", "2026-11-23T12:00:00"),
        ("0 12 * * FRI-MON", "2026-11-20T12:00:00", "2026-11-21T12:00:00"),
        ("0 0 * * 7", "2026-11-21T00:00:00", "2026-11-22T00:00:00"),
        ("0 0 * * 3-3", "2026-11-21T00:00:00", "2026-11-25T00:00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00:00", "2104-02-29T00:00:00"),
        ("0 0 13 * fri", "2026-11-21T00:00:00", "2026-11-27T00:00:00"),
        ("0 0 */2 * mon", "2026-11-21T00:00:00", "2026-11-23T00:00:00"),
        ("0 0 */2 * mon", "2026-11-23T00:00:00", "2026-12-07T00:00:00"),
        ("0 0 1-31 2 mon", "2026-11-23T00:00:00", "2027-02-01T00:00:00"),
        ("0 0 1-31 2 mon", "2027-02-01T00:00:00", "2027-02-02T00:00:00"),
        ("0 0 ? * mon", "2026-11-21T00:00:00", "2026-11-23T00:00:00"),
        ("0 0 1 * ?", "2026-11-21T00:00:00", "2026-12-01T00:00:00"),
        ("0 0 L * *", "2027-02-01T00:00:00", "2027-02-28T00:00:00"),
        ("0 0 L-3 * *", "2027-02-01T00:00:00", "2027-02-25T00:00:00"),
        ("0 0 L,L-1 * *", "2027-02-27T00:00:00", "2027-02-28T00:00:00"),
        ("0 0 LW * *", "2027-02-01T00:00:00", "2027-02-26T00:00:00"),
        ("0 0 15W * *", "2027-05-01T00:00:00", "2027-05-14T00:00:00"),
        ("0 0 15W * *", "2027-08-01T00:00:00", "2027-08-16T00:00:00"),
        ("0 0 W15 * *", "2027-08-01T00:00:00", "2027-08-16T00:00:00"),
        ("0 0 1W * *", "2027-05-01T00:00:00", "2027-05-03T00:00:00"),
        ("0 0 1W * *", "2027-08-01T00:00:00", "2027-08-02T00:00:00"),
        ("0 0 31W * *", "2027-02-01T00:00:00", "2027-03-31T00:00:00"),
        ("0 0 31W * *", "2027-07-01T00:00:00", "2027-07-30T00:00:00"),
        ("0 0 31W * *", "2027-10-01T00:00:00", "2027-10-29T00:00:00"),
        ("0 0 1W,15W * *", "2027-05-03T00:00:00", "2027-05-14T00:00:00"),
        ("0 0 15W * fri", "2027-05-14T00:00:00", "2027-05-21T00:00:00"),
        ("0 0 * * 5#2", "2026-11-21T00:00:00", "2026-12-11T00:00:00"),
        ("0 0 * * fri#5", "2026-11-21T00:00:00", "2027-01-29T00:00:00"),
        ("0 0 * * 5L", "2026-11-21T00:00:00", "2026-11-27T00:00:00"),
        ("0 0 * * L5", "2026-11-21T00:00:00", "2026-11-27T00:00:00"),
        ("0 0 * * friL", "2026-11-21T00:00:00", "2026-11-27T00:00:00"),
        ("0 0 * * 7L", "2026-11-21T00:00:00", "2026-11-29T00:00:00"),
        ("0 0 * * mon,5#1", "2026-11-30T00:00:00", "2026-12-04T00:00:00"),
        ("0 0 1-7 * 5L", "2026-12-07T00:00:00", "2026-12-25T00:00:00"),
        ("*/20 * * * * *", "2026-11-21T10:00:01", "2026-11-21T10:00:20"),
        ("30 0 12 * * *", "2026-11-21T12:00:30", "2026-11-22T12:00:30"),
        ("@hourly", "2026-11-21T10:00:00", "2026-11-21T11:00:00"),
        ("@daily", "2026-11-21T10:00:00", "2026-11-22T00:00:00"),
        ("@midnight", "2026-11-21T10:00:00", "2026-11-22T00:00:00"),
        ("@weekly", "2026-11-21T10:00:00", "2026-11-22T00:00:00"),
        ("@monthly", "2026-11-21T10:00:00", "2026-12-01T00:00:00"),
        ("@YEARLY", "2026-11-21T10:00:00", "2027-01-01T00:00:00"),
        ("@annually", "2026-11-21T10:00:00", "2027-01-01T00:00:00"),
    ],
)
def test_the_next_run(expression: str, after: str, expected: str) -> None:
    assert shown(cron(expression), after, 1) == [f"{expected}+00:00"]


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("* * * *", ["has 4 fields", "write five", "six with the second in front"]),
        ("0 0 1 1 * 2030 5", ["has 7 fields"]),
        ("60 * * * *", ["'60' is not possible for the minute (0-59)"]),
        ("61 * * * * *", ["'61' is not possible for the second (0-59)"]),
        ("* 24 * * *", ["'24' is not possible for the hour (0-23)"]),
        ("* * 0 * *", ["'0'", "day of month (1-31)"]),
        ("* * 0W * *", ["'0w'", "day of month (1-31)"]),
        ("* * 32W * *", ["'32w'", "day of month (1-31)"]),
        ("* * L-31 * *", ["'l-31'", "day of month (1-31)"]),
        ("* * 1-5W * *", ["'1-5w'", "day of month (1-31)"]),
        ("* * ?,1 * *", ["'?'", "day of month"]),
        ("? * * * *", ["'?'", "minute"]),
        ("L * * * *", ["'l'", "minute"]),
        ("* * * 13 *", ["'13'", "month (1-12"]),
        ("* * * * 8", ["'8'", "day of week (0-7"]),
        ("* * * * 1#6", ["'1#6'", "day of week"]),
        ("* * * * L", ["'l'", "day of week"]),
        ("* * * * mon-friL", ["day of week"]),
        ("* * * * funday", ["'funday'", "day of week"]),
        ("*/0 * * * *", ["'*/0'", "minute"]),
        ("1,,2 * * * *", ["minute"]),
        ("R * * * *", ["'r'", "at random", "or H"]),
        ("R(0-10) * * * *", ["at random"]),
        ("5,R/10 * * * *", ["at random"]),
        ("H(40-70) * * * *", ["minute"]),
        ("@reboot", ["'@reboot'", "@hourly, @daily, @midnight"]),
        ("0 0 31 2 *", ["never fires", "day 31", "month 2"]),
        ("0 0 30 feb *", ["never fires", "day 30", "month feb"]),
        ("0 0 31 4,6,9,11 *", ["never fires"]),
        ("0 0 31W 2 *", ["never fires"]),
        ("0 0 */12 * 0#5", ["never fires"]),
        ("\u0660 * * * *", ["beyond ASCII"]),
        ("*\u00a0* * * *", ["beyond ASCII"]),
        ("1," * 5_000, ["10000 characters", "at most 256"]),
    ],
)
def test_a_refusal_is_one_sentence_with_the_fix(expression: str, parts: list[str]) -> None:
    with pytest.raises(TimingError) as caught:
        check(cron(expression), "s", NOW_MS, NO_CALENDARS)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.field == "/schedule"


def test_a_hash_spreads_schedules_and_stays() -> None:
    plan = cron("H H * * *")
    first = {ahead(plan, 0, 1, f"schedule {n}")[0] for n in range(200)}
    assert len(first) > 150
    assert ahead(plan, 0, 2, "a") == ahead(plan, 0, 2, "a")
    quarter = ahead(cron("H/15 * * * *"), NOW_MS, 8, "a")
    assert {later - earlier for earlier, later in pairwise(quarter)} == {900_000}
    assert all(
        parse("0 H(9-16) * * *", f"schedule {n}").hours[0] in range(9, 17) for n in range(50)
    )


def test_a_hashed_day_exists_in_every_month() -> None:
    assert {parse("0 0 H * *", f"{n}").days.days[0] for n in range(500)} == set(range(1, 29))


def test_the_stored_text_is_tidy() -> None:
    checked = check(cron("  */5\t*   * * MON\n"), "s", NOW_MS, NO_CALENDARS)
    assert checked.triggers[0].cron == "*/5 * * * MON"


def test_both_ways_to_step_days_agree() -> None:
    rng = Random("days")
    for _ in range(200):
        text = f"0 0 {random_crons.field(rng, 1, 28)} * {random_crons.field(rng, 0, 6)}"
        days = parse(text, "").days
        from_day = rng.randrange(0, 30_000)
        assert next_day(days, from_day) == _next_other(days, from_day), text


def test_agrees_with_croniter_where_cron_dialects_agree() -> None:
    rng = Random("croniter")
    for _ in range(150):
        text = f"{random_crons.field(rng, 0, 59)} {random_crons.field(rng, 0, 23)} * * *"
        start = datetime.fromtimestamp(rng.randrange(10**8, 2 * 10**9), UTC)
        theirs = islice(croniter(text, start, ret_type=float), 4)
        found = ahead(cron(text), int(start.timestamp()) * 1000, 4)
        assert found == [int(at_s) * 1000 for at_s in theirs], text


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("* * * * *", "Every minute"),
        ("*/15 * * * *", "Every 15 minutes"),
        ("@hourly", "At minute 0 of every hour"),
        ("30 2 * * *", "At 02:30"),
        ("0 9 * * mon-fri", "At 09:00 on Monday to Friday"),
        ("*/5 9-17 * * *", "Every 5 minutes from 09:00 to 17:59"),
        ("0 0 13 * fri", "At 00:00 on day 13 of the month or on Friday"),
        ("0 0 L-3 jan-mar *", "At 00:00 3 days before the end of the month in January to March"),
        ("0 8,20 LW * *", "At 08:00 and 20:00 on the last working day of the month"),
        ("0 0 15W * *", "At 00:00 on the working day nearest to day 15 of the month"),
        ("0 0 * * 5L", "At 00:00 on the last Friday of the month"),
        ("0 0 * * 2#1", "At 00:00 on the first Tuesday of the month"),
        ("*/10 * * * * *", "Every 10 seconds"),
        ("15 * * * * *", "At second 15 of every minute"),
        ("15 30 4 * * sun", "At 04:30:15 on Sunday"),
        ("0 0 1-31 * mon", "At 00:00 every day"),
    ],
)
def test_an_expression_in_english(expression: str, sentence: str) -> None:
    assert explain(cron(expression)) == f"{sentence} (UTC)."


def test_a_plan_in_english() -> None:
    plan = Plan((Trigger(every_ms=90_000), Trigger(every_ms=60_000)), jitter_ms=30_000)
    assert (
        explain(plan)
        == "Every 90 seconds and every minute, up to 30 seconds later, by jitter (UTC)."
    )
