"""A leader whose disk is full writes nothing by itself, changes of members included."""

from __future__ import annotations

from pathlib import Path

import pytest
from consensus_world import World


def test_a_leader_without_space_gives_nobody_a_vote(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(monkeypatch, tmp_path)
    world.win_election("b:1")
    world.acknowledge("b:1", world.journal.last_index)
    world.core.membership.add("d:1", "joining", lambda outcome, result: None)
    world.run()
    world.connect("d:1")
    world.core.space.log_is_stuck = True
    for _ in range(3):
        for peer in ("b:1", "d:1"):
            world.acknowledge(peer, world.journal.last_index)
        world.pass_time(0.05)
    assert world.core.roster.current.find("d:1").standing == "joining"  # type: ignore[union-attr]
    world.core.space.log_is_stuck = False
    for _ in range(3):
        for peer in ("b:1", "d:1"):
            world.acknowledge(peer, world.journal.last_index)
        world.pass_time(0.05)
    assert world.core.roster.current.find("d:1").standing == "voter"  # type: ignore[union-attr]
