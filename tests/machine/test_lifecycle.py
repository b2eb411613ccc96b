"""The table of states, its page, and that nothing moves a job but by it."""

from __future__ import annotations

import lifecycle_page

from cluster.machine import lifecycle
from cluster.machine.lifecycle import LIFECYCLE, NAMES, REASON, STATUS, STATUSES


def test_the_page_shows_the_table() -> None:
    assert lifecycle_page.PAGE.read_text() == lifecycle_page.page(), (
        "run PYTHONPATH=. python tests/machine/lifecycle_page.py"
    )


def test_every_event_and_state_is_explained() -> None:
    assert {event for _, event in LIFECYCLE} == set(lifecycle_page.EVENTS)
    assert set(NAMES.values()) == set(lifecycle_page.MEANING)


def test_only_the_dead_come_back() -> None:
    left = {state for state, _ in LIFECYCLE if lifecycle.is_finished(state)}
    assert left == {lifecycle.FAILED}


def test_every_state_can_be_reached_and_every_live_one_ended() -> None:
    assert set(LIFECYCLE.values()) | {lifecycle.SKIPPED} == set(STATUS)
    for state in STATUS:
        if not lifecycle.is_finished(state):
            assert lifecycle.is_finished(lifecycle.transitions("cancel")[state])


def test_users_see_a_reason_for_everything_pending() -> None:
    assert {s for s, status in STATUS.items() if status == "pending"} == set(REASON)
    assert set(STATUS.values()) == set(STATUSES)
