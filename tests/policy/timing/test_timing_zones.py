"""Zones: their changes to the second, from the package that is named in RELEASES."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import random_crons
from timing_helpers import at

from cluster.policy.timing import RELEASES, TimingError, local_text
from cluster.policy.timing.zones import zone

DAY_S = 86_400


def changes(name: str, first: str, last: str) -> list[tuple[str, int]]:
    found = random_crons.changes(name, at(first) // 1000, at(last) // 1000)
    return [(local_text(s.start_s * 1000, "UTC")[:19], s.offset_s - s.before_s) for s in found]


@pytest.mark.parametrize(
    ("name", "first", "last", "expected"),
    [
        (
            "Europe/Berlin",
            "2027-01-01",
            "2028-01-01",
            [("2027-03-28T01:00:00", 3600), ("2027-10-31T01:00:00", -3600)],
        ),
        (
            "Europe/Berlin",
            "2160-01-01",
            "2161-01-01",
            [("2160-03-30T01:00:00", 3600), ("2160-10-26T01:00:00", -3600)],
        ),
        (
            "Australia/Lord_Howe",
            "2025-01-01",
            "2026-01-01",
            [("2025-04-05T15:00:00", -1800), ("2025-10-04T15:30:00", 1800)],
        ),
        ("Pacific/Apia", "2011-12-01", "2012-01-31", [("2011-12-30T10:00:00", 86_400)]),
        ("Africa/Monrovia", "1971-06-01", "1973-01-01", [("1972-01-07T00:44:30", 2670)]),
        (
            "Africa/Casablanca",
            "2026-02-01",
            "2026-04-01",
            [("2026-02-15T02:00:00", -3600), ("2026-03-22T02:00:00", 3600)],
        ),
        ("Asia/Tokyo", "1971-01-01", "2100-01-01", []),
        ("UTC", "1971-01-01", "2100-01-01", []),
    ],
)
def test_changes(name: str, first: str, last: str, expected: list[tuple[str, int]]) -> None:
    assert changes(name, first, last) == expected


@pytest.mark.parametrize("name", random_crons.ZONES)
def test_stretches_leave_no_second_out(name: str) -> None:
    moment = zone(name)
    end_s = at("2030-06-01") // 1000
    start_s = expected_s = at("1999-06-01") // 1000
    for stretch in moment.stretches(start_s):
        assert stretch.start_s <= expected_s < stretch.end_s
        assert moment.offset_s(expected_s) == moment.offset_s(stretch.end_s - 1) == stretch.offset_s
        assert moment.offset_s(stretch.end_s) == stretch.following_s
        expected_s = stretch.end_s
        if expected_s > end_s:
            break


def test_offsets_by_the_hour_are_those_of_the_stretches() -> None:
    moment = zone("America/New_York")
    start_s = at("2026-01-01") // 1000
    stretches = moment.stretches(start_s)
    stretch = next(stretches)
    for at_s in range(start_s, start_s + 800 * DAY_S, 1800):
        if at_s >= stretch.end_s:
            stretch = next(stretches)
        assert moment.offset_s(at_s) == stretch.offset_s


def test_a_local_time_in_a_gap_is_the_end_of_the_gap() -> None:
    moment = zone("Europe/Berlin")
    assert moment.instant_s(at("2027-03-28T02:30") // 1000) == at("2027-03-28T01:00") // 1000
    assert moment.instant_s(at("2027-10-31T02:30") // 1000) == at("2027-10-31T00:30") // 1000


def test_instants_are_shown_as_the_zone_shows_them() -> None:
    assert local_text(at("2027-03-28T01:00"), "Europe/Berlin") == (
        "2027-03-28T03:00:00+02:00[Europe/Berlin]"
    )
    assert local_text(1_500, "America/New_York") == (
        "1969-12-31T19:00:01.500-05:00[America/New_York]"
    )


def test_releases_are_those_installed() -> None:
    assert f"tzdata {version('tzdata')}, croniter {version('croniter')}" == RELEASES


@pytest.mark.parametrize("name", ["europe/berlin", "Mars/Olympus", "x" * 500, "Europe/../UTC"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(TimingError) as caught:
        zone(name)
    assert caught.value.field == "/timezone"
    assert len(str(caught.value)) < 200
