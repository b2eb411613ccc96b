"""Who leads while links fail in part, one way or for long, and after they heal (C2, C3).

A healthy leader is left alone whoever comes back, and a cluster that can elect somebody does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from consensus_net import Net, NetNode

from cluster.consensus import Outcome, Role

MakeNet = Callable[..., Net]
guarded_or_not = pytest.mark.parametrize("guarded", [True, False])


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeNet:
    def build(count: int = 3, *disabled: str, **options: object) -> Net:
        return Net(monkeypatch, tmp_path, count, disabled=disabled, **options)  # type: ignore[arg-type]

    return build


def leaders(net: Net) -> list[NetNode]:
    return [node for node in net.nodes.values() if node.role is Role.LEADER]


@pytest.mark.parametrize("count", [3, 5])
@guarded_or_not
def test_a_node_that_was_cut_off_for_a_minute_disturbs_nobody(
    make: MakeNet, count: int, guarded: bool
) -> None:
    net = make(count, *([] if guarded else ["c2_prevote"]))
    a = net.elect("a")
    net.pass_time(0.2)
    term = a.term
    net.isolate("c")
    net.pass_time(60)
    assert (net["c"].term == term) is guarded
    net.heal()
    net.pass_time(2)
    assert (leaders(net) == [a] and a.term == term) is guarded
    assert net["c"].log == a.log or not guarded


@guarded_or_not
def test_a_node_that_only_the_leader_cannot_reach_deposes_nobody(
    make: MakeNet, guarded: bool
) -> None:
    """One cut link: b hears both, and must not help c against a leader that b still hears."""
    net = make(3, *([] if guarded else ["c2_prevote", "c2_stickiness"]))
    a = net.elect("a")
    net.pass_time(0.2)
    term = a.term
    net.hold("ac", "ca")
    net.pass_time(5)
    assert (leaders(net) == [a] and a.term == term) is guarded
    net.heal()
    net.pass_time(2)
    assert len(leaders(net)) == 1


@pytest.mark.parametrize("cut", ["ac", "ca", "bc", "cb", "ac cb", "ca bc"])
def test_a_one_way_cut_beside_a_healthy_majority_changes_nothing(make: MakeNet, cut: str) -> None:
    net = make(3)
    a = net.elect("a")
    net.pass_time(0.2)
    term = a.term
    net.hold(*cut.split())
    net.pass_time(5)
    assert (leaders(net), a.term) == ([a], term)
    a.propose(b"x")
    net.pass_time(0.1)
    assert a.outcomes == {b"x": Outcome.APPLIED}
    net.heal()
    net.pass_time(2)
    assert (leaders(net), a.term) == ([a], term)
    assert net["c"].applied == [b"x"]


def test_a_leader_that_hears_nobody_makes_room_for_one_that_does(make: MakeNet) -> None:
    """It can still send, so its heartbeats alone would keep everybody waiting for ever."""
    net = make(3)
    a = net.elect("a")
    net.pass_time(0.2)
    net.hold("ba", "ca")
    a.propose(b"x")
    net.pass_time(3)
    rest = [node for node in leaders(net) if node is not a]
    assert len(rest) == 1
    assert a.role is not Role.LEADER
    assert a.outcomes == {b"x": Outcome.UNKNOWN}
    rest[0].propose(b"y")
    net.pass_time(0.2)
    assert rest[0].outcomes == {b"y": Outcome.APPLIED}
    net.heal()
    net.pass_time(2)
    assert net.disagreement() == ""
    assert {len(node.applied) for node in net.nodes.values()} == {2}


@guarded_or_not
def test_check_quorum_a_cut_off_leader_knows_it(make: MakeNet, guarded: bool) -> None:
    net = make(3, *([] if guarded else ["c2_check_quorum"]))
    a = net.elect("a")
    net.isolate("a")
    net.pass_time(2)
    assert (a.role is not Role.LEADER) is guarded
    assert len([node for node in leaders(net) if node is not a]) == 1


@pytest.mark.parametrize("cut", ["majority", "halves"])
def test_five_nodes_in_pieces_have_one_leader_per_term_and_heal(make: MakeNet, cut: str) -> None:
    net = make(5)
    net.elect("a")
    net.pass_time(0.2)
    sides = ("ab", "cde") if cut == "majority" else ("ab", "cd")
    outside = [x for x in "abcde" if x not in "".join(sides)]
    for letter in outside:
        net.isolate(letter)
    for one in sides[0]:
        for other in sides[1]:
            net.hold(one + other, other + one)
    net.pass_time(3)
    assert len(leaders(net)) == (1 if cut == "majority" else 0)
    net.heal()
    net.pass_time(3)
    assert len(leaders(net)) == 1
    assert len({node.term for node in net.nodes.values()}) == 1


@guarded_or_not
def test_a_higher_term_with_a_shorter_log_locks_nobody_out(make: MakeNet, guarded: bool) -> None:
    """etcd #8501: a may not win for its log, b not for its term, unless b learns the term."""
    net = make(
        3, *([] if guarded else ["c3_adopt_term"]), logs={"a": [1], "b": [1, 1]}, terms={"a": 9}
    )
    net.crash("c")
    net.pass_time(5)
    assert (leaders(net) == [net["b"]]) is guarded
    if guarded:
        assert net["b"].term > 9
        assert net["a"].log == net["b"].log


@pytest.mark.parametrize("log", [[1], [1, 5]])
def test_a_lower_term_is_no_obstacle_to_a_pre_vote(make: MakeNet, log: list[int]) -> None:
    """etcd #8243: c comes back with the term of long ago just as the leader dies."""
    net = make(3, logs={"a": [1, 5], "b": [1, 5], "c": log}, terms={"a": 5, "b": 5, "c": 1})
    net.crash("b")
    net.pass_time(5)
    assert len(leaders(net)) == 1
    assert net["a"].log == net["c"].log


@guarded_or_not
def test_a_node_with_an_inflated_term_gets_in_again(make: MakeNet, guarded: bool) -> None:
    """Its answers must teach the leader; silence would keep it out (C3)."""
    net = make(3, *([] if guarded else ["c3_higher_term"]), terms={"c": 50})
    net.isolate("c")
    a = net.elect("a")
    a.propose(b"x")
    net.pass_time(0.2)
    for peer in ("a:1", "b:1"):  # an old pre-vote question to c would tell as well
        net.disconnect("c:1", peer)
        net.connect("c:1", peer)
    net.heal()
    net.pass_time(3)
    reached = net["c"].applied == [b"x"]
    assert len(leaders(net)) == 1
    if guarded:
        assert reached
        assert leaders(net)[0].term > 50
    else:
        assert not reached


@guarded_or_not
def test_a_deposed_leader_does_not_campaign_at_once(make: MakeNet, guarded: bool) -> None:
    """Its election deadline is the one from before it led: long past (r27)."""
    net = make(3, *([] if guarded else ["c2_rearm"]))
    a = net.elect("a")
    net.pass_time(2)
    net.hold("ba", "ca")
    a.core.engine.step_down()
    before = a.core.counters.prevotes_started
    net.pass_time(0.02)
    assert (a.core.counters.prevotes_started == before) is guarded


@guarded_or_not
def test_the_death_of_a_leader_is_noticed_at_once(make: MakeNet, guarded: bool) -> None:
    net = make(3, *([] if guarded else ["disconnect_hint"]))
    net.elect("a")
    net.pass_time(0.5)
    net.crash("a")
    net.pass_time(0.2)
    assert (len(leaders(net)) == 1) is guarded
    net.pass_time(1.5)
    assert len(leaders(net)) == 1


def test_a_restarted_voter_does_not_help_against_a_leader_it_forgot(make: MakeNet) -> None:
    """It has heard nobody since its start, so it might; but a leader then simply goes on."""
    net = make(3)
    a = net.elect("a")
    net.pass_time(0.5)
    term = a.term
    net.crash("b")
    net.restart("b")
    net.pass_time(2)
    assert (leaders(net), a.term) == ([a], term)


def test_a_star_of_five_is_led_by_its_centre(make: MakeNet) -> None:
    """Only c reaches everybody. The leaves keep asking it, and must not keep it from asking."""
    net = make(5)
    a = net.elect("a")
    net.pass_time(0.2)
    for one in "abde":
        for other in "abde":
            if one < other:
                net.hold(one + other, other + one)
    net.pass_time(10)
    assert a.role is not Role.LEADER
    assert leaders(net) == [net["c"]]
    term = net["c"].term
    net.pass_time(10)
    assert (leaders(net), net["c"].term) == ([net["c"]], term)
    net.heal()
    net.pass_time(2)
    assert (leaders(net), net["c"].term) == ([net["c"]], term)


@pytest.mark.parametrize("count", [3, 5])
def test_links_that_come_and_go_around_followers_change_nothing(make: MakeNet, count: int) -> None:
    """Reset by reset, each follower loses the leader now and then; never a majority at once."""
    net = make(count)
    a = net.elect("a")
    net.pass_time(0.2)
    term = a.term
    others = [x for x in "abcde"[:count] if x != "a"]
    for turn in range(40):
        victim = f"{others[turn % len(others)]}:1"
        net.disconnect("a:1", victim)
        net.pass_time(0.12)
        net.connect("a:1", victim)
        net.pass_time(0.08)
    assert (leaders(net), a.term) == ([a], term)
