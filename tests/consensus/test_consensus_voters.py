"""Whose word counts while members change: what seeds found beside the rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from consensus_world import World

from cluster.consensus.members import binding, first_members
from cluster.consensus.mesh import Received
from cluster.consensus.roster import Roster
from cluster.consensus.wire import AppendReply

MakeWorld = Callable[..., World]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeWorld:
    def world(*disabled: str) -> World:
        return World(monkeypatch, tmp_path, *disabled)

    return world


def test_a_node_that_joins_takes_a_state_from_before_it_was_added_for_old() -> None:
    """Seed 50003663: a member that had slept refused it, and it ended although it was expected."""
    replaced = binding(first_members(("n1", "n2", "n3")), {"n1": "lost"})
    roster = Roster("n1", replaced, 66)
    assert roster.expects_this("new", joins=True)
    assert not roster.expects_this("new", joins=False)
    roster.appended(78, binding(replaced, {"n1": "new"}))
    assert roster.expects_this("new", joins=False)


def test_what_the_voters_until_now_hold_is_committed_before_there_are_more(make: MakeWorld) -> None:
    """Seed 50004603: two of three disks held an entry, the leader's was the third. A fourth voter
    came in the same turn, and the leader, counted as always, made it three of four."""
    world = make()
    world.win_election("b:1")
    world.acknowledge("b:1", world.journal.last_index)
    world.core.membership.add("d:1", "joining", lambda outcome, result: None)
    world.run()
    world.connect("c:1", "d:1")
    world.acknowledge("b:1", world.journal.last_index)
    world.disk.held = True
    world.core.propose(b"new", lambda outcome, result: None)
    world.run()
    last, term = world.journal.last_index, world.engine.term()
    assert world.journal.durable_index < last
    committed: list[int] = []
    world.core.roster.on_change = lambda: committed.append(world.engine.commit_index())
    for peer in ("b:1", "c:1", "d:1"):
        reply = AppendReply(term, 99, last + 1, False, True)
        world.network.inbox.append(Received(peer, world.network.epoch(peer), reply, b""))
    world.run()
    assert "d:1" in world.core.roster.voters
    assert committed[0] == last
