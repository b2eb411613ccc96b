"""What plans rest on, as text, and whom a difference concerns."""

from __future__ import annotations

import pytest

from cluster.plan import Plan, Trigger
from cluster.policy.timing.basis import Basis, Change

RELEASES = "tzdata 2026.2, croniter 7.0.0"
BASIS = Basis.of(RELEASES, {"de": 3, "a: b%": 1})
UTC_CRON = Plan((Trigger(cron="0 0 * * *"),))
UTC_EVERY = Plan((Trigger(every_ms=1_000),))
ZONED = Plan((Trigger(every_ms=1_000),), timezone="Europe/Berlin")
GERMAN = Plan((Trigger(every_ms=1_000),), calendars=("de",))


def test_the_text_can_be_read_again() -> None:
    assert Basis.read(BASIS.text) == BASIS
    assert Basis.of(RELEASES, {}).text == RELEASES
    assert Basis.read("") == Basis({}, {})


@pytest.mark.parametrize(
    ("old", "concerned"),
    [
        (BASIS.text, []),
        ("", [UTC_CRON, ZONED, GERMAN]),
        (BASIS.text.replace("2026.2", "2026.1"), [ZONED]),
        (BASIS.text.replace("7.0.0", "6.2.4"), [UTC_CRON]),
        (BASIS.text.replace("de:3", "de:2"), [GERMAN]),
        (f"{BASIS.text} fr:1", []),
    ],
)
def test_a_change_concerns_who_uses_what_changed(old: str, concerned: list[Plan]) -> None:
    change = Change.between(Basis.read(old), BASIS)
    plans = (UTC_CRON, UTC_EVERY, ZONED, GERMAN)
    assert [plan for plan in plans if change.concerns(plan)] == concerned
    assert bool(change) == bool(concerned)
