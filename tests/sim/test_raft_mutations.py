"""The simulation of consensus misses a guard that is switched off: what never fails checks nothing.

The table of all guards is in docs/consensus.md; here is one guard for each kind of watching, of
those that a seed or two are enough for.
"""

from __future__ import annotations

import pytest

from chaos.sim.mutations import SHAPES, hunt
from cluster.consensus.guards import GUARDS

SEEDS_MAX = 15
SOON = (
    "a2_keep_matching",  # logs compared
    "a4_ack_term",  # what a leader counts
    "a5_keep_suffix",
    "a5_snapshot_age",
    "a6_members_only",
    "a6_vote_once",
    "a7_catch_up",
    "a7_own_term",
    "a9_own_disk",
    "a10_read_index",  # registers
    "a11_callbacks_outside",
    "b1_fsync",
    "b6_hard_state",
    "persist_then_speak",
    "outbox_epoch",
    "ready_after_noop",
    "c2_prevote",
    "c2_rearm",
    "c2_stickiness",
    "c3_higher_term",
    "c7_whole_term",
    "c8_bounds",
    "a5_verify_first",  # what gets a name
    "aba_durable",  # what is on the platter
    "b1_settle",
    "b3_align",
    "b7_checksums",  # damage at rest
    "b8_full_disk",
    "c1_total_apply",
    "c5_keep_transfer",
    "apply_slice",  # time of a turn
    "flow_window",
)


@pytest.mark.parametrize("guard", SOON)
def test_a_guard_that_is_off_is_missed(guard: str) -> None:
    assert hunt(guard, 1, SEEDS_MAX).seeds, f"{SEEDS_MAX} seeds do without {guard}"


def test_every_shape_belongs_to_a_guard() -> None:
    assert set(SHAPES) <= set(GUARDS)
