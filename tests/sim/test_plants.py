"""The simulation finds planted faults: a checker that never fails checks nothing."""

from __future__ import annotations

import pytest
from plants import PLANTS, Plant

from chaos.sim.world import run_seed

SEEDS_MAX = 40
MINUTES = 1.0
# Where the search begins for faults that need a rare coincidence, so that CI does not wait.
BEGIN = {
    "forget_what_is_late": 11,
    "ignore_lost_answers": 24,
    "keep_missing_assignments": 4,
    "keep_the_credit": 5,
    "push_what_was_cancelled": 5,
    "truncate_before_the_history": 9,
}


@pytest.mark.parametrize("plant", PLANTS, ids=[plant.__name__ for plant in PLANTS])
def test_a_planted_fault_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    first = BEGIN.get(plant.__name__, 1)
    seeds = range(first, first + SEEDS_MAX)
    assert any(run_seed(seed, MINUTES).failures for seed in seeds), (
        f"{plant.__name__} was not found in {SEEDS_MAX} seeds"
    )
