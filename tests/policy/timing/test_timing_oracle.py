"""Twenty thousand random schedules against cronsim, an independent engine with Debian's rules.

What it does otherwise is told in docs/time.md and left out here by rule, never by example.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from random import Random

import pytest
import random_crons
from cronsim import CronSim, CronSimError
from timing_helpers import NO_CALENDARS, cron

from cluster.policy.timing import Occurrence, TimingError, local_text, walk
from cluster.policy.timing.parse import parse
from cluster.policy.timing.zones import zone

SHARDS = 20
CASES = 1_000
STEPS = 4
DAY_S = 86_400


class Case:
    """One question to both engines."""

    def __init__(self, rng: Random) -> None:
        self.expression = random_crons.expression(rng)
        self.zone = rng.choice(random_crons.ZONES)
        self.after_s = random_crons.instant_s(rng, self.zone)

    def ours(self) -> list[int]:
        plan = cron(self.expression, self.zone)
        found = islice(walk(plan, "s", self.after_s * 1000, NO_CALENDARS), STEPS)
        try:
            return [step.nominal_ms // 1000 for step in found if isinstance(step, Occurrence)]
        except TimingError:
            return []  # it never fires

    def theirs(self) -> list[int] | None:
        """None: it refuses the expression."""
        start = datetime.fromtimestamp(self.after_s, UTC).astimezone(zone(self.zone).info)
        try:
            return [int(at.timestamp()) for at in islice(CronSim(self.expression, start), STEPS)]
        except CronSimError:
            return None

    def told_apart(self, last_s: int) -> str:
        """Which difference told in docs/time.md may show up to this instant; empty: none."""
        wildcard = parse(self.expression, "s").wildcard
        for change in random_crons.changes(self.zone, self.after_s - DAY_S, last_s + DAY_S):
            first_s, end_s = change.start_s + change.before_s, change.start_s + change.offset_s
            if not wildcard and len(self.expression.split()) == 6:
                return "six fields"
            if wildcard and (first_s % 3600 or (first_s - end_s) % 3600):
                return "not by whole hours"
            if wildcard and first_s <= -(-first_s // DAY_S) * DAY_S < end_s:
                return "no midnight"
        return ""

    def __str__(self) -> str:
        after = local_text(self.after_s * 1000, self.zone)
        return f"{self.expression!r} after {after}: not as cronsim"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_agrees_with_cronsim(shard: int) -> None:
    rng = Random(f"quorate {shard}")
    compared, excluded = 0, 0
    while compared < CASES:
        case = Case(rng)
        ours = case.ours()
        if ours and case.told_apart(ours[-1]):
            excluded += 1
            continue
        theirs = case.theirs()
        if theirs is None:
            continue
        assert ours == theirs, str(case)
        compared += 1
    assert excluded < CASES // 5
