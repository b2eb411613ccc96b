"""The classical traces: figures of the Raft paper, and the faults that pysyncobj once had.

Each is played on real cores over links that deliver in the order the trace needs. Entry i of the
paper is entry i + 1 here: a log begins behind index 1.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from consensus_net import Net

from cluster.consensus import Outcome, Role

MakeNet = Callable[..., Net]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeNet:
    def build(count: int = 3, *disabled: str, **options: object) -> Net:
        return Net(monkeypatch, tmp_path, count, disabled=disabled, **options)  # type: ignore[arg-type]

    return build


@pytest.fixture
def single_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every append carries one entry, so that a test can cut between any two."""
    monkeypatch.setattr("cluster.consensus.replicator.BATCH_ENTRIES", 1)


def digits(terms: str) -> list[int]:
    return [int(term) for term in terms]


FIGURE_7 = {
    "a": "111445566",  # lacks an entry
    "b": "1114",  # lacks many
    "c": "11144556666",  # has one too many
    "d": "111445566677",  # has two of a later term
    "e": "1114444",  # both
    "f": "11122233333",  # both, over two terms
    "g": "1114455666",  # the leader of term 8
}


def test_figure_7_every_follower_ends_with_the_leaders_log(make: MakeNet) -> None:
    logs = {letter: digits(terms) for letter, terms in FIGURE_7.items()}
    net = make(7, logs=logs, terms=dict.fromkeys(logs, 7))
    leader = net.elect("g")
    assert leader.term == 8
    voters = {x.id[0] for x in net.nodes.values() if x.journal.getVotedForNodeId() == "g:1"}
    assert voters == {"a", "b", "e", "f", "g"}  # c and d have more than the candidate
    for node in net.nodes.values():
        assert node.terms == digits("11144556668"), node.id
        assert node.journal.durable_index == 12
    net.pass_time(0.1)
    assert {node.commit for node in net.nodes.values()} == {12}
    assert net.disagreement() == ""


def replicate_an_old_entry_to_a_majority(net: Net) -> None:
    """Figure 8 (c): a leads term 4; its entry 3 of term 2 reaches b and c, its own no-op nobody."""
    a, majority = net["a"], ("b", "c")
    net.now += 1.0
    for node in net.nodes.values():
        node.core.engine.rearm()
    out = [f"a{letter}" for letter in "bcde" if f"{letter}:1" in net.nodes]
    net.hold(*out)
    a.campaign()
    for _ in ("pre-vote", "vote"):
        for pair in out:
            if net.waiting(pair):
                net.deliver(pair)
        net.flow()
    assert (a.role, a.term, a.log[-1]) == (Role.LEADER, 4, (4, 4))
    for letter in majority:
        net.deliver(f"a{letter}")  # the no-op does not fit there yet
        net.flow()
        net.deliver(f"a{letter}")  # entry 3 of term 2, alone
        net.flow()
        assert net[letter].log[-1] == (3, 2)
    assert all(a.core.engine.match_index(f"{letter}:1") == 3 for letter in majority)


@pytest.mark.usefixtures("single_entries")
@pytest.mark.parametrize("counts_old_terms", [False, True])
def test_figure_8_an_entry_of_an_old_term_is_not_committed_by_counting(
    make: MakeNet, counts_old_terms: bool
) -> None:
    """(d): e overwrites it. That the engine keeps the rule is checked against breaking it."""
    net = make(5, logs={"a": [1, 2], "b": [1], "c": [1], "d": [1], "e": [1, 3]}, terms={"a": 3})
    net.crash("e")
    replicate_an_old_entry_to_a_majority(net)
    assert net["a"].commit == 1
    if counts_old_terms:
        net["a"].core.engine.set_commit_index(3)  # the rule of Raft 5.4.2 broken by hand
        net.run()
    net.isolate("a")
    net.restart("e")
    net.isolate("a")
    net.pass_time(0.3)
    net.elect("e")
    assert net["b"].terms[:2] == [1, 3]
    net.heal()
    net.pass_time(1.0)
    if counts_old_terms:
        assert "committed entry 3" in net["a"].fatal[0]
    else:
        assert net["a"].terms == net["e"].terms
        assert net.disagreement() == ""
        assert net["a"].fatal == []


@pytest.mark.usefixtures("single_entries")
def test_figure_8_an_entry_of_the_own_term_commits_all_before_it(make: MakeNet) -> None:
    """(e): with an entry of term 4 on a majority, e cannot be elected any more."""
    net = make(5, logs={"a": [1, 2], "b": [1], "c": [1], "d": [1], "e": [1, 3]}, terms={"a": 3})
    net.crash("e")
    replicate_an_old_entry_to_a_majority(net)
    for letter in ("b", "c"):
        net.deliver(f"a{letter}", len(net.waiting(f"a{letter}")))
    net.flow()
    assert net["a"].commit == 4
    net.crash("a")
    net.heal()
    e = net.restart("e")
    net.now += 1.0
    e.campaign()
    net.flow()
    assert e.role is not Role.LEADER
    net.pass_time(3.0)
    assert {node.terms[1] for node in net.nodes.values()} == {2}
    assert net.disagreement() == ""


@pytest.mark.usefixtures("single_entries")
def test_pysyncobj_169_three_nodes_do_not_commit_old_terms_either(make: MakeNet) -> None:
    net = make(3, logs={"a": [1, 2], "b": [1], "c": [1]}, terms={"a": 3})
    net.crash("c")
    net.now += 1.0
    net["a"].campaign()
    net.hold("ab")
    for _ in ("pre-vote", "vote", "no-op", "entry 3"):
        net.deliver("ab")
        net.flow()
    assert net["a"].core.engine.match_index("b:1") == 3
    assert net["a"].commit == 1
    net.deliver("ab")
    net.flow()
    assert net["a"].commit == 4


def test_pysyncobj_166_the_commit_index_never_goes_back(make: MakeNet) -> None:
    """A new leader that knows of fewer committed entries than a follower."""
    net = make(3)
    a = net.elect("a")
    a.propose(b"x")
    net.flow()  # no time passes: the followers are not told of the commit yet
    assert (a.commit, net["b"].commit) == (3, 2)
    net.hold("ba", "ac")
    net.now += 1.0
    net["b"].campaign()
    seen = [a.commit]
    for _ in range(20):
        net.flow()
        if net.waiting("ba"):
            net.deliver("ba")
        seen.append(a.commit)
    assert net["b"].role is Role.LEADER
    assert seen == sorted(seen)
    assert seen[-1] >= 4


@pytest.mark.usefixtures("single_entries")
def test_pysyncobj_167_the_match_index_never_goes_back(make: MakeNet) -> None:
    """Answers from before and after a lost connection, the oldest last."""
    net = make(3)
    a = net.elect("a")
    net.hold("ba")
    a.propose(b"one", b"two", b"three")
    net.flow()
    seen = []
    for _ in range(3):
        net.deliver("ba")
        net.flow()
        seen.append(a.core.engine.match_index("b:1"))
    net.disconnect("a:1", "b:1")
    net.connect("a:1", "b:1")
    for _ in range(10):
        net.pass_time(0.05)
        while net.waiting("ba"):
            net.deliver("ba")
            seen.append(a.core.engine.match_index("b:1"))
    assert seen == sorted(seen)
    assert seen[-1] == 5


@pytest.mark.parametrize("seed", range(6))
def test_what_a_leader_counts_is_on_the_followers_disk(make: MakeNet, seed: int) -> None:
    """Random delivery, resets and slow disks: match indexes are true and never fall in a term."""
    import random

    chance = random.Random(seed)
    net = make(3)
    a = net.elect("a")
    last: dict[str, int] = {}
    for number in range(300):
        step = chance.random()
        pair = chance.choice(["ab", "ba", "ac", "ca"])
        if step < 0.3:
            a.propose(b"%d" % number)
        elif step < 0.33:
            net.disconnect(f"{pair[0]}:1", f"{pair[1]}:1")
            net.connect(f"{pair[0]}:1", f"{pair[1]}:1")
        elif step < 0.4:
            node = net[chance.choice("bc")]
            node.disk.held = not node.disk.held
        elif step < 0.45:
            net.now += 0.01
            net.run()
        elif net.waiting(pair):
            net.deliver(pair)
            net.nodes[f"{pair[1]}:1"].disk.finish()
        for peer in ("b:1", "c:1"):
            match = a.core.engine.match_index(peer)
            follower = net.nodes[peer]
            assert match >= last.get(peer, 0)
            assert match <= follower.journal.durable_index
            assert match == 0 or follower.journal.term_at(match) == a.journal.term_at(match)
            last[peer] = match
    for node in net.nodes.values():
        node.disk.held = False
    net.pass_time(0.5)
    assert a.role is Role.LEADER
    assert net["b"].log == net["c"].log == a.log
    assert set(a.outcomes.values()) == {Outcome.APPLIED}
