"""Who campaigns, who votes for whom, and who leaves a healthy leader alone (C2, C3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from consensus_world import World, command

from cluster.consensus import Outcome, Role
from cluster.consensus.wire import (
    HigherTerm,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)

MakeWorld = Callable[..., World]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeWorld:
    def build(*disabled: str, **options: object) -> World:
        return World(monkeypatch, tmp_path, disabled=frozenset(disabled), **options)  # type: ignore[arg-type]

    return build


OWN = [command("own3", 3, 1), command("own4", 4, 1)]
BASE = [command("base2", 2, 1)]


def test_a_timeout_alone_never_raises_the_term(make: MakeWorld) -> None:
    world = make(term=4)
    world.connect("b:1", "c:1")
    world.pass_time(5.0)
    assert world.engine.term() == 4
    assert world.core.counters.prevotes_started > 3


def test_a_won_round_starts_one_campaign_however_many_grant_it(make: MakeWorld) -> None:
    peers = ("b:1", "c:1", "d:1", "e:1")
    world = make(peers=peers)
    world.connect(*peers)
    world.pass_time(0.7)
    question = next(m for _, m, _ in reversed(world.network.sent) if isinstance(m, PreVote))
    for voter in peers:
        world.receive(voter, PreVoteReply(0, question.round, True))
    assert world.engine.term() == 1
    assert world.core.counters.elections_started == 1


def test_a_pre_vote_is_refused_while_the_leader_is_heard(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    world.connect("b:1", "c:1")
    world.append("b:1", 1, (2, 1))
    question = PreVote(2, 9, 1, 1)
    assert world.receive("c:1", question) == [PreVoteReply(1, 1, False)]
    assert world.receive("c:1", RequestVote(2, 9, 1, False)) == []
    assert world.engine.term() == 1
    world.now += 0.31
    assert world.receive("c:1", question) == [PreVoteReply(1, 1, True)]
    world.append("b:1", 1, (2, 1))  # it only slept; but c campaigns by now
    assert world.receive("c:1", RequestVote(2, 9, 1, False)) == [VoteReply(2)]


def test_a_pre_vote_needs_a_complete_log(make: MakeWorld) -> None:
    world = make(entries=BASE + OWN, term=1)
    world.connect("c:1")
    assert world.receive("c:1", PreVote(2, 3, 1, 1)) == [PreVoteReply(1, 1, False)]
    assert world.receive("c:1", PreVote(2, 2, 2, 1)) == [PreVoteReply(1, 1, True)]


def test_a_higher_term_in_a_pre_vote_reply_is_adopted(make: MakeWorld) -> None:
    """Else a node with a higher term and a shorter log is locked out (etcd #8501)."""
    world = make()
    world.connect("b:1", "c:1")
    world.receive("b:1", PreVoteReply(8, 1, False))
    assert world.engine.term() == 8


@pytest.mark.parametrize("guarded", [True, False])
def test_c3_an_old_leader_is_told(make: MakeWorld, guarded: bool) -> None:
    world = make(*([] if guarded else ["c3_higher_term"]), term=5)
    world.connect("b:1")
    replies = world.append("b:1", 3, (1, 0))
    assert replies == ([HigherTerm(5)] if guarded else [])


def test_a_leader_steps_down_when_told_of_a_higher_term(make: MakeWorld) -> None:
    world = make()
    world.win_election("b:1")
    outcomes: list[Outcome] = []
    world.core.propose(b"x", lambda outcome, result: outcomes.append(outcome))
    world.run()
    world.receive("c:1", HigherTerm(9))
    assert (world.engine.role(), world.engine.term()) == (Role.FOLLOWER, 9)
    assert outcomes == [Outcome.UNKNOWN]
    world.pass_time(0.25)
    assert world.core.counters.elections_started == 1  # re-armed: no campaign at once


def test_check_quorum_a_cut_off_leader_steps_down(make: MakeWorld) -> None:
    world = make()
    world.win_election("b:1")
    world.pass_time(0.9)
    assert world.engine.role() is not Role.LEADER


def test_a_transfer_request_passes_stickiness(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    world.connect("b:1", "c:1")
    world.append("b:1", 1, (2, 1))
    assert world.receive("c:1", RequestVote(2, 2, 1, True)) == [VoteReply(2)]


def test_a_node_that_is_told_to_lead_campaigns_at_once(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    world.connect("b:1", "c:1")
    world.append("b:1", 1, (2, 1))
    assert world.receive("c:1", TimeoutNow(1)) == []  # not from the leader
    sent = world.receive("b:1", TimeoutNow(1))
    assert sent == [RequestVote(2, 2, 1, True)]


def test_a_lost_leader_connection_starts_a_pre_vote_early(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    world.connect("b:1", "c:1")
    world.append("b:1", 1, (2, 1))
    world.disconnect("b:1")
    world.pass_time(0.08)
    assert [type(m) for m in world.sent_to("c:1")] == [PreVote]
    assert world.engine.leader() is None


def test_a_node_that_slept_does_not_campaign(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    world.connect("b:1", "c:1")
    world.append("b:1", 1, (2, 1))
    world.network.sent.clear()
    world.now += 3.0
    world.run()
    assert world.network.sent == []
    assert world.core.counters.stall_max_ms >= 3000


def test_a_leader_that_is_not_heard_is_not_known_any_more(make: MakeWorld) -> None:
    """Else a node that is cut off calls itself ready, and names a leader that may be long gone."""
    world = make(entries=BASE, term=1)
    world.connect("b:1", "c:1")
    world.append("b:1", 1, (2, 1))
    world.pass_time(0.25)
    assert world.engine.leader() == "b:1"
    world.pass_time(0.5)
    assert world.engine.leader() is None
    world.append("b:1", 1, (2, 1), seq=2)
    assert (world.engine.leader(), world.engine.term()) == ("b:1", 1)


def test_a_promise_is_not_kept_for_ever(make: MakeWorld) -> None:
    """The vote request of a campaign of long ago, out of a stalled connection, while b leads on."""
    world = make(entries=BASE, term=1)
    world.connect("b:1", "c:1")
    assert world.receive("c:1", PreVote(2, 9, 1, 1)) == [PreVoteReply(1, 1, True)]
    for turn in range(14):
        world.append("b:1", 1, (2, 1), seq=turn + 1)
        world.pass_time(0.05)
    assert world.receive("c:1", RequestVote(2, 9, 1, False)) == []
    assert world.engine.term() == 1


def test_grants_from_before_a_sleep_win_nothing(make: MakeWorld) -> None:
    """They are read first when the node wakes up, before the heartbeats of the leader it missed."""
    world = make(entries=BASE, term=1)
    world.connect("b:1", "c:1")
    world.pass_time(0.7)
    question = next(m for _, m, _ in reversed(world.network.sent) if isinstance(m, PreVote))
    world.now += 3.0
    world.receive("c:1", PreVoteReply(1, question.round, True))
    assert world.engine.term() == 1
    assert world.core.counters.elections_started == 0
    world.append("b:1", 1, (2, 1))
    assert world.engine.leader() == "b:1"


def test_grants_for_another_term_win_nothing(make: MakeWorld) -> None:
    """The question was for term 2; whoever granted that did not say yes to term 9."""
    peers = ("b:1", "c:1", "d:1", "e:1")
    world = make(peers=peers, entries=BASE, term=1)
    world.connect(*peers)
    world.pass_time(0.7)
    question = next(m for _, m, _ in reversed(world.network.sent) if isinstance(m, PreVote))
    world.receive("b:1", PreVoteReply(1, question.round, True))
    world.receive("c:1", PreVoteReply(8, question.round, False))
    world.receive("d:1", PreVoteReply(1, question.round, True))
    assert world.engine.term() == 8
    assert world.core.counters.elections_started == 0


@pytest.mark.parametrize("ahead", [("b:1", "c:1"), ("b:1",)])
def test_a_leader_whose_disk_hangs_makes_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ahead: tuple[str, ...]
) -> None:
    """Others commit without it, but not for ever: what it lacks has to be held in memory."""
    world = World(monkeypatch, tmp_path)
    world.win_election("b:1")
    world.disk.held = True
    outcomes: list[Outcome] = []
    world.core.propose(b"x", lambda outcome, result: outcomes.append(outcome))
    world.run()
    index = world.journal.last_index
    for turn in range(100):
        for peer in ("b:1", "c:1"):
            world.acknowledge(peer, index if peer in ahead else 1, seq=turn)
        world.pass_time(0.05)
        if world.engine.role() is not Role.LEADER:
            break
    if len(ahead) == 2:
        assert world.engine.role() is Role.FOLLOWER
        assert world.engine.leader() is None
        assert outcomes == [Outcome.APPLIED]
    else:  # nobody could do better: the other disks are as slow
        assert world.engine.role() is Role.LEADER
