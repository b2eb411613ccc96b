"""The simulation of consensus misses a guard that is switched off: what never fails checks nothing.

The table of all guards is in docs/simulation.md; these are missed soon enough for every test run.
"""

from __future__ import annotations

import pytest

from chaos.sim.mutations import hunt

SEEDS_MAX = 40
SOON = (
    "a1_chunk_commit",
    "a2_keep_matching",
    "a9_own_disk",
    "a10_read_index",
    "b1_fsync",
    "b6_hard_state",
    "persist_then_speak",
    "c2_prevote",
    "c8_bounds",
)


@pytest.mark.parametrize("guard", SOON)
def test_a_guard_that_is_off_is_missed(guard: str) -> None:
    assert hunt(guard, 1, SEEDS_MAX).seeds, f"{SEEDS_MAX} seeds do without {guard}"
