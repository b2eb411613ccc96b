"""A leader whose data folder a member does not know: that member is behind, and must catch up."""

from __future__ import annotations

from pathlib import Path

import pytest
from consensus_world import World

from cluster.consensus.mesh import Refused


def test_a_leader_whose_folder_a_member_doubts_makes_way_for_one_whom_it_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who missed the entries that bind a new folder takes them from nobody but a node it knows."""
    world = World(monkeypatch, tmp_path)
    world.win_election("b:1")
    for peer in ("b:1", "c:1"):
        world.acknowledge(peer, world.journal.last_index)

    def refuse_and_wait(seconds: float) -> str | None:
        world.network.inbox.append(Refused("c:1", "folder_in_doubt"))
        world.run()
        world.pass_time(seconds)
        world.acknowledge("b:1", world.journal.last_index)
        return world.core.doubts.successor()

    assert refuse_and_wait(0.1) is None  # it may hear of the folder in a moment
    assert refuse_and_wait(0.5) == "b:1"
    assert refuse_and_wait(0.1) is None  # once is enough for a while
    assert not world.fatal


def test_who_answers_again_doubts_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world = World(monkeypatch, tmp_path)
    world.win_election("b:1")
    world.network.inbox.append(Refused("c:1", "folder_in_doubt"))
    world.run()
    world.pass_time(0.6)
    for peer in ("b:1", "c:1"):
        world.acknowledge(peer, world.journal.last_index)
    assert world.core.doubts.successor() is None
