"""A few seconds of `python -m chaos.live`; minutes and hours of its scenarios are for nights."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.live.runner import run
from chaos.live.scenario import ClusterPart, FaultPart, LoadPart, Scenario

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SCENARIO = Scenario(
    about="The leader is cut off or dies, a worker stalls past its lease.",
    faults=[
        FaultPart("cut_leader_off", seconds=(0.5, 1.0)),
        FaultPart("kill_leader", seconds=(0.1, 0.5)),
        FaultPart("worker_stalled", seconds=(3.5, 4.0)),
    ],
    cluster=ClusterPart(wires=True),
    load=LoadPart(clients=2, registers=1),
    name="short",
)
SEED = 1  # the leader is cut off, then a worker stalls


async def test_promises_hold_while_leaders_are_cut_off_and_workers_stall(tmp_path: Path) -> None:
    verdict = await run(SCENARIO, SEED, 3.0, tmp_path)
    assert verdict.faults == [], str(verdict)
    assert verdict.strikes.total() >= 1
    history = verdict.history
    assert history.requests  # how many, is up to the machine
    assert history.runs
    assert any(recurrence.launched for recurrence in history.recurrences.values())


async def test_a_node_whose_journal_rots_is_replaced_under_load(tmp_path: Path) -> None:
    scenario = Scenario(
        about="A bit flips in a journal.",
        faults=[FaultPart("rot_journal", seconds=(0.0, 0.1))],
        load=LoadPart(clients=2, registers=1),
        name="rot",
    )
    verdict = await run(scenario, SEED, 0.5, tmp_path)
    assert verdict.faults == [], str(verdict)
    assert verdict.strikes == {"rot_journal": 1}
    assert len(list(tmp_path.glob("n*.rotten1"))) == 1
