"""Catch-up of missed occurrences: inside the window one by one, older ones counted and skipped."""

from __future__ import annotations

from cluster.policy.planning import SKIPPED_COUNTED_MAX, first_occurrence, next_occurrence

MINUTE_MS = 60_000
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def test_the_next_minute_when_nothing_was_missed() -> None:
    now_ms = START_MS + 5
    assert next_occurrence("* * * * *", 0, START_MS, now_ms, 300_000) == (START_MS + MINUTE_MS, 0)
    assert next_occurrence("", 2_000, START_MS, now_ms, 300_000) == (START_MS + 2_000, 0)


def test_occurrences_inside_the_window_are_made_up_for_one_by_one() -> None:
    now_ms = START_MS + 4 * MINUTE_MS + 1
    assert next_occurrence("* * * * *", 0, START_MS, now_ms, 300_000) == (START_MS + MINUTE_MS, 0)


def test_older_ones_are_skipped_and_counted() -> None:
    now_ms = START_MS + 60 * MINUTE_MS
    next_ms, skipped = next_occurrence("* * * * *", 0, START_MS, now_ms, 5 * MINUTE_MS)
    assert (next_ms, skipped) == (START_MS + 55 * MINUTE_MS, 54)
    next_ms, skipped = next_occurrence("", MINUTE_MS, START_MS, now_ms, 5 * MINUTE_MS)
    assert (next_ms, skipped) == (START_MS + 55 * MINUTE_MS, 54)


def test_a_year_of_missed_minutes_is_not_counted_to_the_end() -> None:
    now_ms = START_MS + 365 * 1440 * MINUTE_MS
    next_ms, skipped = next_occurrence("* * * * *", 0, START_MS, now_ms, 0)
    assert (next_ms, skipped) == (now_ms, SKIPPED_COUNTED_MAX)


def test_an_interval_starts_one_interval_from_now() -> None:
    assert first_occurrence("", 2_000, START_MS) == START_MS + 2_000
    assert first_occurrence("0 12 * * *", 0, START_MS) == START_MS + 720 * MINUTE_MS
