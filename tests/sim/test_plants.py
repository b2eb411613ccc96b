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
    "forget_what_was_taken": 8,
    "keep_the_credit": 6,
    "no_attempt_fence": 9,
    "restore_without_ready_queues": 7,
    "truncate_before_the_history": 23,
}


@pytest.mark.parametrize("plant", PLANTS, ids=[plant.__name__ for plant in PLANTS])
def test_a_planted_fault_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    first = BEGIN.get(plant.__name__, 1)
    seeds = range(first, first + SEEDS_MAX)
    assert any(run_seed(seed, MINUTES).failures for seed in seeds), (
        f"{plant.__name__} was not found in {SEEDS_MAX} seeds"
    )
