"""Gaps and repeated hours of real zones: every rule where the rules differ, worked out by hand."""

from __future__ import annotations

import pytest
from timing_helpers import at, cron, dst, shown, steps

from cluster.policy.timing import Occurrence


@pytest.mark.parametrize(
    ("zone", "expression", "after", "expected"),
    [
        # Fixed times in a gap: once, at its end.
        (
            "America/New_York",
            "30 2 * * *",
            "2026-03-08T00:00-05:00",
            ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"],
        ),
        (
            "America/New_York",
            "0,30 2 * * *",
            "2026-03-08T00:00-05:00",
            ["2026-03-08T03:00:00-04:00", "2026-03-09T02:00:00-04:00"],
        ),
        (
            "America/New_York",
            "30 2,3 * * *",
            "2026-03-08T00:00-05:00",
            ["2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"],
        ),
        (
            "America/New_York",
            "0 2,3 * * *",
            "2026-03-08T00:00-05:00",
            ["2026-03-08T03:00:00-04:00", "2026-03-09T02:00:00-04:00"],
        ),
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2027-03-28T00:00+01:00",
            ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"],
        ),
        (
            "Europe/Dublin",
            "30 1 * * *",
            "2027-03-28T00:00+00:00",
            ["2027-03-28T02:00:00+01:00", "2027-03-29T01:30:00+01:00"],
        ),
        (
            "America/Sao_Paulo",
            "0 0 * * *",
            "2018-11-03T12:00-03:00",
            ["2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"],
        ),
        (
            "Africa/Cairo",
            "15 0 * * *",
            "2025-04-24T12:00+02:00",
            ["2025-04-25T01:00:00+03:00", "2025-04-26T00:15:00+03:00"],
        ),
        (
            "Australia/Lord_Howe",
            "15 2 * * *",
            "2025-10-04T12:00+10:30",
            ["2025-10-05T02:30:00+11:00", "2025-10-06T02:15:00+11:00"],
        ),
        (
            "Pacific/Apia",
            "30 10 * * *",
            "2011-12-29T12:00-10:00",
            ["2011-12-31T00:00:00+14:00", "2011-12-31T10:30:00+14:00"],
        ),
        (
            "Pacific/Apia",
            "0 12 30 * *",
            "2011-12-01T00:00-10:00",
            ["2011-12-31T00:00:00+14:00", "2012-01-30T12:00:00+14:00"],
        ),
        # Fixed times in a repeated hour: once, the first time.
        (
            "America/New_York",
            "30 1 * * *",
            "2026-11-01T00:00-04:00",
            ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"],
        ),
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2027-10-31T00:00+02:00",
            ["2027-10-31T02:30:00+02:00", "2027-11-01T02:30:00+01:00"],
        ),
        (
            "Europe/Dublin",
            "30 1 * * *",
            "2027-10-31T00:00+01:00",
            ["2027-10-31T01:30:00+01:00", "2027-11-01T01:30:00+00:00"],
        ),
        (
            "America/Sao_Paulo",
            "30 23 * * *",
            "2018-02-17T12:00-02:00",
            ["2018-02-17T23:30:00-02:00", "2018-02-18T23:30:00-03:00"],
        ),
        (
            "Australia/Lord_Howe",
            "45 1 * * *",
            "2025-04-05T12:00+11:00",
            ["2025-04-06T01:45:00+11:00", "2025-04-07T01:45:00+10:30"],
        ),
        (
            "Africa/Cairo",
            "30 23 * * *",
            "2025-10-30T12:00+03:00",
            ["2025-10-30T23:30:00+03:00", "2025-10-31T23:30:00+02:00"],
        ),
        # A wildcard follows real time.
        (
            "America/New_York",
            "30 * * * *",
            "2026-03-08T01:00-05:00",
            ["2026-03-08T01:30:00-05:00", "2026-03-08T03:30:00-04:00"],
        ),
        (
            "America/New_York",
            "0 */2 * * *",
            "2026-03-08T00:30-05:00",
            ["2026-03-08T04:00:00-04:00", "2026-03-08T06:00:00-04:00"],
        ),
        (
            "America/New_York",
            "30 * * * *",
            "2026-11-01T00:45-04:00",
            ["2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00", "2026-11-01T02:30:00-05:00"],
        ),
        (
            "Australia/Lord_Howe",
            "0 */4 * * *",
            "2025-04-06T00:00+11:00",
            ["2025-04-06T04:00:00+10:30", "2025-04-06T08:00:00+10:30"],
        ),
        (
            "Australia/Lord_Howe",
            "*/15 1 * * *",
            "2025-04-06T01:20+11:00",
            [
                "2025-04-06T01:30:00+11:00",
                "2025-04-06T01:45:00+11:00",
                "2025-04-06T01:30:00+10:30",
                "2025-04-06T01:45:00+10:30",
                "2025-04-07T01:00:00+10:30",
            ],
        ),
        # Seconds: to the second, on both sides.
        (
            "Europe/Berlin",
            "59 59 1 * * *",
            "2027-03-28T00:00+01:00",
            ["2027-03-28T01:59:59+01:00", "2027-03-29T01:59:59+02:00"],
        ),
        (
            "Europe/Berlin",
            "* * * * * *",
            "2027-03-28T01:59:58+01:00",
            ["2027-03-28T01:59:59+01:00", "2027-03-28T03:00:00+02:00", "2027-03-28T03:00:01+02:00"],
        ),
        (
            "Europe/Berlin",
            "30 30 2 * * *",
            "2027-03-28T00:00+01:00",
            ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:30+02:00"],
        ),
        # A long step over two changes.
        (
            "Europe/Berlin",
            "*/30 12 1 7 *",
            "2026-07-01T12:30+02:00",
            ["2027-07-01T12:00:00+02:00", "2027-07-01T12:30:00+02:00"],
        ),
        (
            "Africa/Casablanca",
            "0 12 1 * *",
            "2026-02-01T12:00+01:00",
            ["2026-03-01T12:00:00+00:00", "2026-04-01T12:00:00+01:00"],
        ),
    ],
)
def test_the_rule_of_debian(zone: str, expression: str, after: str, expected: list[str]) -> None:
    assert shown(cron(expression, zone), after, len(expected)) == expected


GAP = ("Europe/Berlin", "2027-03-28T01:00+01:00")
AGAIN = ("Europe/Berlin", "2027-10-31T01:20+02:00")


@pytest.mark.parametrize(
    ("expression", "gap", "expected"),
    [
        ("30 2 * * *", "run", ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"]),
        ("30 2 * * *", "skip", ["gap 2027-03-28T03:30:00+02:00", "2027-03-29T02:30:00+02:00"]),
        ("30 2 * * *", "shift", ["2027-03-28T03:30:00+02:00", "2027-03-29T02:30:00+02:00"]),
        ("0,30 2 * * *", "shift", ["2027-03-28T03:00:00+02:00", "2027-03-28T03:30:00+02:00"]),
        ("30 2,3 * * *", "shift", ["2027-03-28T03:30:00+02:00", "2027-03-29T02:30:00+02:00"]),
        ("45 2 * * *", "shift", ["2027-03-28T03:45:00+02:00", "2027-03-29T02:45:00+02:00"]),
        ("15,30 2,3 * * *", "skip", ["2027-03-28T03:15:00+02:00", "2027-03-28T03:30:00+02:00"]),
        ("30 * * * *", "run", ["2027-03-28T01:30:00+01:00", "2027-03-28T03:00:00+02:00"]),
        ("30 * * * *", "shift", ["2027-03-28T01:30:00+01:00", "2027-03-28T03:30:00+02:00"]),
    ],
)
def test_an_explicit_rule_for_gaps(expression: str, gap: str, expected: list[str]) -> None:
    assert shown(dst(expression, GAP[0], gap=gap), GAP[1], 2) == expected


@pytest.mark.parametrize(
    ("expression", "repeat", "expected"),
    [
        ("30 2 * * *", "first", ["31T02:30:00+02:00"]),
        ("30 2 * * *", "second", ["31T02:30:00+01:00"]),
        ("30 2 * * *", "both", ["31T02:30:00+02:00", "31T02:30:00+01:00"]),
        (
            "*/30 * * * *",
            "first",
            ["31T01:30:00+02:00", "31T02:00:00+02:00", "31T02:30:00+02:00", "31T03:00:00+01:00"],
        ),
        (
            "*/30 * * * *",
            "second",
            ["31T01:30:00+02:00", "31T02:00:00+01:00", "31T02:30:00+01:00", "31T03:00:00+01:00"],
        ),
        ("0 2,3 * * *", "both", ["31T02:00:00+02:00", "31T02:00:00+01:00", "31T03:00:00+01:00"]),
    ],
)
def test_an_explicit_rule_for_repeated_hours(
    expression: str, repeat: str, expected: list[str]
) -> None:
    found = shown(dst(expression, AGAIN[0], repeat=repeat), AGAIN[1], len(expected))
    assert found == [f"2027-10-{text}" for text in expected]


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        ("run", ["31T00:00:00+14:00", "31T10:30:00+14:00"]),
        ("skip", ["31T10:30:00+14:00", "01T10:30:00+14:00"]),
        ("shift", ["31T10:30:00+14:00", "01T10:30:00+14:00"]),
    ],
)
def test_the_day_that_apia_left_out(gap: str, expected: list[str]) -> None:
    found = shown(dst("30 10 * * *", "Pacific/Apia", gap=gap), "2011-12-29T12:00-10:00", 2)
    assert [text[8:] for text in found] == expected


def test_half_an_hour_is_shifted_by_half_an_hour() -> None:
    plan = dst("15 2 * * *", "Australia/Lord_Howe", gap="shift")
    assert shown(plan, "2025-10-04T12:00+10:30", 1) == ["2025-10-05T02:45:00+11:00"]


def test_odd_moments_carry_their_reason() -> None:
    (missing,) = steps(cron("30 2 * * *", "Europe/Berlin"), "2027-03-28T00:00+01:00", 1)
    assert isinstance(missing, Occurrence)
    assert [note.text for note in missing.notes] == [
        "02:30 does not exist on 2027-03-28, runs at 03:00"
    ]
    (twice,) = steps(cron("30 2 * * *", "Europe/Berlin"), "2027-10-31T00:00+02:00", 1)
    assert isinstance(twice, Occurrence)
    assert [(note.code, note.text) for note in twice.notes] == [
        ("repeated", "02:30 comes twice on 2027-10-31, this is the first time")
    ]
    (plain,) = steps(cron("30 2 * * *", "Europe/Berlin"), "2027-06-01T00:00+02:00", 1)
    assert isinstance(plain, Occurrence)
    assert plain.notes == ()


def test_an_answer_inside_the_second_pass_does_not_go_back() -> None:
    plan = cron("30 1 * * *", "America/New_York")
    assert shown(plan, "2026-11-01T01:30:00-05:00", 1) == ["2026-11-02T01:30:00-05:00"]
    assert shown(plan, "2026-11-01T01:10:00-05:00", 1) == ["2026-11-02T01:30:00-05:00"]
    assert at("2026-11-01T01:30:00-05:00") - at("2026-11-01T01:30:00-04:00") == 3_600_000
