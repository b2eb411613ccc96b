"""Two releases in one cluster: no node ever meets what its release cannot read, and who would see
otherwise. More of them: `python -m chaos.sim --world rollout --seeds 200`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos.sim.rollout import NEW
from chaos.sim.world import run_seed
from cluster.actors import express
from cluster.actors.proposer import Proposer
from cluster.machine import snapshot
from cluster.raft_state import MemberLevels, RaftState

SEEDS = (1, 2, 3)
SEEDS_MAX = 12
MINUTES = 1.0
Plant = Callable[[pytest.MonkeyPatch], None]


def test_nodes_of_two_releases_serve_one_cluster() -> None:
    refused = 0
    for seed in SEEDS:
        report = run_seed(seed, MINUTES, rolls=True)
        assert not report.failures, (
            f"{report.failures[:3]}; replay: python -m chaos.sim --world rollout --seed {seed}"
            f" --minutes {MINUTES}"
        )
        changes, refusals = report.releases
        assert changes >= 3
        refused += refusals
    assert refused, "no old release was started on a raised cluster"


def propose_without_asking(patch: pytest.MonkeyPatch) -> None:
    """A new leader uses what its release can do, whoever follows."""
    patch.setattr(express, "LEVEL", 0)
    patch.setattr(Proposer, "_require_level", lambda self, commands: None)
    patch.setattr("chaos.sim.rollout.Rollout.proposed", lambda *_: None)


def raise_without_asking(patch: pytest.MonkeyPatch) -> None:
    """The leader takes its own release for everybody's."""

    def levels(self: RaftState) -> list[MemberLevels]:
        return [MemberLevels(self.node_id, True, self.support)]

    patch.setattr(RaftState, "levels", levels)


def write_blocks_for_everybody(patch: pytest.MonkeyPatch) -> None:
    """Snapshots are written as the newest release reads them."""
    patch.setattr(RaftState, "snapshot", lambda self: snapshot.dump(self.state))


def go_on_whatever_the_level(patch: pytest.MonkeyPatch) -> None:
    """An old release is started on a raised cluster, and takes part."""
    patch.setattr("cluster.raft_state.refusal", lambda level, highest: "")
    patch.setattr("cluster.machine.snapshot_load.refusal", lambda level, highest: "")


# What is complained about, and where the search begins, so that CI does not wait.
PLANTS: tuple[tuple[Plant, str, int], ...] = (
    (propose_without_asking, "met AssignNew", 1),
    (raise_without_asking, f"the level was raised to {NEW} without", 6),
    (write_blocks_for_everybody, "unknown section", 5),
    (go_on_whatever_the_level, "met AssignNew", 1),
)


@pytest.mark.parametrize(
    ("plant", "complaint", "first"), PLANTS, ids=[row[0].__name__ for row in PLANTS]
)
def test_a_planted_fault_is_found(
    plant: Plant, complaint: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    found: list[str] = []
    for seed in range(first, first + SEEDS_MAX):
        found += run_seed(seed, MINUTES, rolls=True).failures
        if any(complaint in failure for failure in found):
            return
    pytest.fail(f"not found in {SEEDS_MAX} seeds; instead: {found[:3]}")
