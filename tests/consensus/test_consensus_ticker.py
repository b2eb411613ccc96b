"""When a node looks at its clock by itself: seldom while nothing happens, and never too late."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from consensus_world import World, command

from cluster.consensus.ticker import Ticker, rest_s

OFTEN_S = 0.01
LONGEST_S = 0.3 / 6  # of the shortest election timeout, 300 ms
BASE = [(b"\x00one", 2, 1)]
Make = Any


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Make:
    return lambda **settings: World(monkeypatch, tmp_path, **settings)


def rest(world: World) -> float:
    return rest_s(world.core, world.now)


def following(make: Make) -> World:
    world: World = make(entries=BASE, term=1)
    world.connect("b:1", "c:1")
    world.append("b:1", 1, (2, 1), commit=2)
    return world


def test_a_follower_rests_until_it_may_have_to_campaign(make: Make) -> None:
    world = following(make)
    assert rest(world) == pytest.approx(LONGEST_S)
    while world.engine.deadline() - world.now > 0.04:
        world.pass_time(0.01)
    assert rest(world) == pytest.approx(world.engine.deadline() - world.now)


def test_who_lost_its_leader_does_not_rest(make: Make) -> None:
    world = following(make)
    world.disconnect("b:1")
    assert rest(world) == 0.0


def test_a_leader_rests_until_its_next_heartbeat(make: Make) -> None:
    world: World = make(entries=BASE, term=1)
    world.win_election("b:1")
    world.acknowledge("b:1", world.journal.last_index)
    world.acknowledge("c:1", world.journal.last_index)
    world.pass_time(0.06)
    left_s = rest(world)
    assert 0 < left_s <= LONGEST_S
    world.now += left_s
    world.network.sent.clear()
    world.pass_time(0.01)
    assert world.sent_to("b:1")


def test_who_has_work_does_not_rest(make: Make) -> None:
    world: World = make(entries=BASE, term=1)
    world.win_election("b:1")
    world.acknowledge("b:1", world.journal.last_index)
    world.pass_time(0.06)
    world.core.propose(b"entry", lambda outcome, result: None)
    world.run()
    assert rest(world) == 0.0
    world.acknowledge("b:1", world.journal.last_index)
    world.pass_time(0.02)
    assert rest(world) > 0
    world.core.read_index(lambda answer: None, 1_000)
    assert rest(world) == 0.0


def test_who_waits_for_its_disk_does_not_rest(make: Make) -> None:
    world = following(make)
    world.disk.held = True
    world.append("b:1", 1, (2, 1), command("two", 3, 1), seq=2)
    assert rest(world) == 0.0
    world.disk.held = False
    world.finish_disk()
    world.append("b:1", 1, (3, 1), commit=3, seq=3)
    world.pass_time(0.01)
    assert rest(world) > 0


class FakeLoop:
    """Keeps what is planned."""

    def __init__(self) -> None:
        self.planned: list[float] = []
        self.cancelled = 0

    def call_later(self, delay_s: float, call: object) -> FakeLoop:
        self.planned.append(delay_s)
        return self

    def cancel(self) -> None:
        self.cancelled += 1


def test_what_arrives_may_bring_the_timer_forward(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that rests loses its leader's connection: its campaign must not wait."""
    world, loop = following(make), FakeLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    ticker = Ticker(cast(Any, SimpleNamespace(timer_s=OFTEN_S)), lambda: None)
    ticker.plan(world.core)
    ticker.plan(world.core)
    world.disconnect("b:1")
    ticker.plan(world.core)
    ticker.plan(world.core)
    assert loop.planned == [pytest.approx(LONGEST_S), OFTEN_S]
    assert loop.cancelled == 1
