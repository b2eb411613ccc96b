"""The simulated surroundings do what they claim: late is not never, and order is kept."""

from __future__ import annotations

import asyncio
import contextvars
from random import Random
from types import SimpleNamespace
from typing import Any

from chaos.linearizable import IMPOSSIBLE, Operation
from chaos.sim.raft.clients import step
from chaos.sim.raft.loop import BEING, NodeLoop
from chaos.sim.raft.network import End, Fabric
from cluster.consensus.mesh import Connected, Disconnected, Received
from cluster.consensus.wire import HigherTerm


class Someone:
    """A being that only counts its moves."""

    def __init__(self, name: str = "n1:1") -> None:
        self.id = name
        self.frozen: list[asyncio.Handle] | None = None
        self.moves = 0
        self.clock = SimpleNamespace(began_s=0.0, rate=1.0)
        self.context = contextvars.copy_context()
        self.context.run(BEING.set, self)

    def moved(self) -> None:
        self.moves += 1


def run_for(loop: NodeLoop, seconds: float) -> None:
    loop.run_until_complete(asyncio.sleep(seconds))


def test_a_paused_node_runs_late_and_in_order() -> None:
    loop, being, done = NodeLoop(), Someone(), []
    being.frozen = []
    for number in (1, 2, 3):
        loop.call_later(number / 10, done.append, number, context=being.context)
    run_for(loop, 1.0)
    assert done == [] and being.moves == 0
    loop.thaw(being)
    run_for(loop, 0.0)
    assert done == [1, 2, 3] and being.moves == 3
    loop.close()


class Pair:
    """Two ends of one fabric, connected."""

    def __init__(self) -> None:
        self.loop = NodeLoop()
        self.sent: list[Any] = []
        watcher = SimpleNamespace(
            on_sent=lambda *what: self.sent.append(what), on_taken=lambda *what: None
        )
        self.fabric = Fabric(self.loop, Random(1), watcher)
        self.ends = [End(self.fabric, Someone(name), lambda: None, {}) for name in ("a:1", "b:1")]
        for end in self.ends:
            end.identify(b"c", "")
            self.loop.run_until_complete(end.start())
        run_for(self.loop, 1.0)

    def terms(self) -> list[int]:
        """What the second one got, in order."""
        inbox = self.ends[1].inbox
        return [event.message.term for event in inbox if isinstance(event, Received)]


def test_a_cut_holds_frames_and_delivers_them_in_order() -> None:
    pair = Pair()
    pair.fabric.cut("a:1", "b:1")
    for term in (1, 2, 3):
        assert pair.ends[0].send("b:1", HigherTerm(term))
    run_for(pair.loop, 5.0)
    assert pair.terms() == []
    pair.ends[1].send("a:1", HigherTerm(9))
    run_for(pair.loop, 0.1)
    assert any(isinstance(event, Received) for event in pair.ends[0].inbox)  # one way only
    pair.fabric.heal("a:1", "b:1")
    run_for(pair.loop, 0.1)
    assert pair.terms() == [1, 2, 3]
    pair.loop.close()


def test_a_reset_loses_what_is_in_flight_and_tells_both_sides() -> None:
    pair = Pair()
    before = pair.ends[1].epoch("a:1")
    pair.ends[0].send("b:1", HigherTerm(1))
    pair.fabric.reset_between("a:1", "b:1")
    run_for(pair.loop, 1.0)
    assert pair.terms() == []
    for end in pair.ends:
        kinds = [type(event) for event in end.inbox]
        assert kinds == [Connected, Disconnected, Connected]
    assert pair.ends[1].epoch("a:1") > before
    pair.loop.close()


def test_who_may_write_again_is_woken_in_its_own_name() -> None:
    pair = Pair()
    woken: list[Any] = []
    end = pair.ends[0]
    end._wake = lambda: woken.append(BEING.get())
    while end.writable("b:1"):
        assert end.send("b:1", HigherTerm(1))
    run_for(pair.loop, 1.0)
    assert woken == [end.life] and end.writable("b:1")
    pair.loop.close()


def test_a_link_whose_first_bytes_are_early_comes_up_once() -> None:
    pair = Pair()
    pair.fabric.base_s = (0.001, 0.1)
    for _ in range(20):
        before = [len(end.inbox) for end in pair.ends]
        pair.fabric.reset_between("a:1", "b:1")
        for _ in range(800):  # each speaks as soon as it can
            run_for(pair.loop, 0.001)
            pair.ends[0].send("b:1", HigherTerm(1))
            pair.ends[1].send("a:1", HigherTerm(1))
        for end, count in zip(pair.ends, before, strict=True):
            news = [type(event) for event in list(end.inbox)[count:]]
            assert news.count(Connected) == news.count(Disconnected) == 1
    pair.loop.close()


def operation(what: tuple[str, ...], answer: str) -> Operation:
    return Operation(1, 2, what, (answer,))


def test_the_model_of_a_register() -> None:
    assert step("", operation(("put", "x"), "done")) == "x"
    assert step("", operation(("insert", "x"), "done")) == "x"
    assert step("y", operation(("insert", "x"), "no")) == "y"
    assert step("y", operation(("insert", "x"), "done")) is IMPOSSIBLE
    assert step("y", operation(("delete",), "done")) == ""
    assert step("", operation(("delete",), "done")) is IMPOSSIBLE
    assert step("y", operation(("read",), "y")) == "y"
    assert step("y", operation(("read",), "x")) is IMPOSSIBLE
    assert step("y", operation(("insert", "x"), "?")) == "y"
