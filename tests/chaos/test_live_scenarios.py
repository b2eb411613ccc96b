"""Scenario files say what they can, and name faults that exist."""

from __future__ import annotations

import pytest

from chaos.live import scenario
from chaos.live.harm import STRIKES
from chaos.live.harm.clock import apart_s


@pytest.mark.parametrize("name", scenario.names())
def test_a_scenario_asks_only_for_what_its_cluster_has(name: str) -> None:
    loaded = scenario.load(name)
    for fault in loaded.faults:
        assert fault.name in STRIKES
        assert fault.weight > 0
        assert 0 <= fault.seconds[0] <= fault.seconds[1] <= 30
        needs = fault.name.split("_")
        assert loaded.cluster.wires or not {"cut", "wires"} & set(needs)
        assert loaded.cluster.clock_bound_s or "clock" not in needs
        assert loaded.cluster.segment or "unplug" not in needs
        assert loaded.cluster.disk_mb or fault.name != "disk_full"


def test_every_fault_is_in_some_scenario() -> None:
    used = {fault.name for name in scenario.names() for fault in scenario.load(name).faults}
    assert used == set(STRIKES)


def test_an_unknown_scenario_is_refused() -> None:
    with pytest.raises(ValueError, match="no scenario 'nothing'; there are"):
        scenario.load("nothing")


def test_clocks_that_are_believed_one_after_the_other_may_jump_both_ways() -> None:
    assert apart_s(0.5) == 0.6  # a third of a second back, then as much forward
    assert apart_s(0.0) == 0.0
