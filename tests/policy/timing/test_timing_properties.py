"""Whatever the plan: in order, never early, and the same from wherever one asks."""

from __future__ import annotations

from itertools import islice, pairwise
from random import Random

import pytest
import random_crons
from timing_helpers import DAY_MS, HOUR_MS, NO_CALENDARS

from cluster.plan import Plan, Span, Trigger, Window
from cluster.policy.timing import Occurrence, TimingError, next_occurrence, walk

PLANS = 120
STEPS = 12


def trigger(rng: Random, after_ms: int) -> Trigger:
    kind = rng.random()
    if kind < 0.7:
        return Trigger(cron=random_crons.expression(rng))
    if kind < 0.85:
        return Trigger(every_ms=rng.randint(1, DAY_MS), anchor_ms=rng.randint(0, after_ms))
    return Trigger(at_ms=tuple(sorted({after_ms + rng.randint(1, DAY_MS) for _ in range(5)})))


def window(rng: Random) -> Window:
    start_s = rng.randrange(0, 86_400, 1_800)
    weekdays = tuple(sorted(rng.sample(range(7), rng.randint(1, 6)))) if rng.random() < 0.3 else ()
    return Window(start_s, (start_s + rng.randrange(1_800, 80_000)) % 86_400, weekdays)


def plan_of(rng: Random) -> tuple[Plan, int, dict[str, frozenset[int]]]:
    name = rng.choice(random_crons.ZONES)
    after_ms = random_crons.instant_s(rng, name) * 1000 + rng.randrange(1000)
    day = after_ms // DAY_MS
    holidays = frozenset(day + offset for offset in range(-9, 30) if rng.random() < 0.4)

    def some(chance: float) -> bool:
        return rng.random() < chance

    plan = Plan(
        tuple(trigger(rng, after_ms) for _ in range(rng.randint(1, 3))),
        unless=(trigger(rng, after_ms),) if some(0.2) else (),
        timezone=name,
        gap=rng.choice(("run", "skip", "shift")),
        repeat=rng.choice(("first", "second", "both")),
        dst_explicit=some(0.5),
        calendars=("c",) if some(0.5) else (),
        on_holiday=rng.choice(("run", "skip", "previous", "next")),
        windows=(window(rng),) if some(0.3) else (),
        outside=rng.choice(("defer", "skip")),
        blackouts=(Span(after_ms + HOUR_MS, after_ms + 9 * HOUR_MS),) if some(0.2) else (),
        blackout_windows=(window(rng),) if some(0.1) else (),
        jitter_ms=rng.randint(1, DAY_MS) if some(0.3) else 0,
    )
    return plan, after_ms, {"c": holidays}


@pytest.mark.parametrize("shard", range(4))
def test_occurrences_come_in_order_and_the_same_from_anywhere(shard: int) -> None:
    rng = Random(f"plans {shard}")
    checked = 0
    while checked < PLANS:
        plan, after_ms, calendars = plan_of(rng)
        try:
            seen = list(islice(walk(plan, "s", after_ms, calendars), STEPS))
        except TimingError:
            continue  # an expression that never fires
        checked += 1
        found = [step for step in seen if isinstance(step, Occurrence)]
        instants = [after_ms, *(step.nominal_ms for step in seen)]
        assert all(a < b for a, b in pairwise(instants)), plan
        assert all(a.fire_ms <= b.fire_ms for a, b in pairwise(found)), plan
        assert all(step.fire_ms >= step.nominal_ms for step in found), plan
        for step in found:
            for from_ms in (after_ms, rng.randrange(after_ms, step.nominal_ms)):
                assert next_occurrence(plan, "s", from_ms, calendars) == step, (plan, from_ms)
            after_ms = step.nominal_ms


def test_a_schedule_with_an_id_of_its_own_shares_the_answer() -> None:
    plan = Plan((Trigger(cron="*/5 * * * *"),))
    one = next_occurrence(plan, "one", 0, NO_CALENDARS)
    assert one is not None
    assert one == next_occurrence(plan, "other", 0, NO_CALENDARS)
