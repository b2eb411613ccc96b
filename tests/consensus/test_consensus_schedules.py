"""The schedules that lose or fork acknowledged writes in the bare library, on whole clusters.

Each is played with its guards on, where nothing may be lost, and with them off, where it must be:
so the schedule is known to be the right one. The letters are those of docs/consensus.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from consensus_net import CLUSTER, Net

from cluster.consensus import Outcome, Role
from cluster.consensus.members import first_members
from cluster.consensus.replicator import OWN_LAG_ENTRIES_MAX
from cluster.consensus.snapfile import write_content
from cluster.consensus.wire import (
    AppendReply,
    PreVoteReply,
    ReadPong,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    VoteReply,
)

MakeNet = Callable[..., Net]
guarded_or_not = pytest.mark.parametrize("guarded", [True, False])


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeNet:
    def build(count: int = 3, *disabled: str, **options: object) -> Net:
        return Net(monkeypatch, tmp_path, count, disabled=disabled, **options)  # type: ignore[arg-type]

    return build


MEMBERS = first_members(("a:1", "b:1", "c:1"))


@pytest.fixture
def single_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every append carries one entry, so that a test can cut between any two."""
    monkeypatch.setattr("cluster.consensus.replicator.BATCH_ENTRIES", 1)


def snapshot_bytes(path: Path, index: int, term: int) -> bytes:
    """A snapshot of one entry."""
    with path.open("wb") as file:
        chunks = [(3).to_bytes(4, "big"), b"x:1"]
        write_content(file, cluster=CLUSTER, index=index, term=term, members=MEMBERS, chunks=chunks)
    return path.read_bytes()


def off(guarded: bool, *names: str) -> tuple[str, ...]:
    return () if guarded else names


@guarded_or_not
def test_a1_one_chunk_of_a_snapshot_commits_nothing(make: MakeNet, guarded: bool) -> None:
    """The entries of a cut off leader meet the snapshot of its successor."""
    disabled = off(guarded, "a1_chunk_commit")
    net = make(3, *disabled, snapshot_chunk_bytes=64, leader_fallback_ms=60_000)
    a = net.elect("a")
    net.isolate("a")
    a.propose(b"lost-1", b"lost-2", b"lost-3")
    net.flow()
    b = net.elect("b")
    for number in range(20):
        b.propose(b"kept-%d" % number)
    net.flow()
    b.compact()
    net.heal()
    for peer in ("b:1", "c:1"):  # what was in flight is lost, and b begins anew
        net.disconnect("a:1", peer)
        net.connect("a:1", peer)
    net.hold("ba")
    for _ in range(20):
        net.pass_time(0.05)
        if net.waiting("ba"):
            chunk = isinstance(net.waiting("ba")[0], SnapshotChunk)
            net.deliver("ba")
            if chunk:
                break
    net.run()
    assert (b"lost-1" not in a.applied) is guarded
    assert (net.disagreement() == "") is guarded
    if guarded:
        net.heal()
        net.pass_time(1.0)
        assert a.applied == b.applied
        assert a.machine.restored == 1
        assert set(a.outcomes.values()) == {Outcome.UNKNOWN}


@pytest.mark.usefixtures("single_entries")
@guarded_or_not
def test_a2_a3_an_acknowledged_entry_survives_an_early_ack(make: MakeNet, guarded: bool) -> None:
    """No fault at all: several batches in flight, the first ack comes, then the leader dies."""
    net = make(3, *off(guarded, "a2_keep_matching", "a3_no_rewind"))
    a = net.elect("a")
    net.hold("ac", "ba")
    a.propose(b"one", b"two", b"three", b"four")
    net.flow()
    assert net["b"].log[-1] == (6, 1)
    net.hold("ab")
    for _ in range(4):
        net.deliver("ba")
        net.run()
    assert set(a.outcomes.values()) == {Outcome.APPLIED}
    if net.waiting("ab"):  # what the rewind sent again
        net.deliver("ab")
        net.run()
    net.crash("a")
    net.heal()
    net.elect("b")
    applied = net["b"].applied
    assert (applied == [b"one", b"two", b"three", b"four"]) is guarded


@guarded_or_not
def test_a4_an_ack_of_two_terms_ago_commits_nothing(make: MakeNet, guarded: bool) -> None:
    net = make(5, *off(guarded, "a4_ack_term"))
    a = net.elect("a")
    net.hold("ac", "ad", "ae", "ba")
    a.propose(b"t1-1", b"t1-2", b"t1-3", b"t1-4", b"t1-5")
    net.flow()
    assert net["b"].log[-1] == (7, 1)  # and the acks of it wait in the link from b to a
    net.elect("c")
    net.flow()
    net.hold("ca")
    net.release("ac")
    assert net["b"].log == [(2, 1), (3, 2)]  # c cut it back
    net.now += 1.0
    net.flow()
    net.release("ad", "ca")
    net.flow()
    assert a.log == [(2, 1), (3, 2)]
    net.elect("a")
    assert a.term == 3
    net.hold("ab", "ac", "ae")
    a.propose(b"t3-1", b"t3-2", b"t3-3")
    net.flow()
    assert net.holders(7, 3) == {"a", "d"}
    net.release("ba")
    net.flow()
    assert (a.commit < 5) is guarded
    assert (b"t3-3" not in a.outcomes) is guarded


@guarded_or_not
def test_a5_an_older_snapshot_does_not_take_back_what_was_acknowledged(
    make: MakeNet, guarded: bool
) -> None:
    """r19: the leader believes a follower to be far behind, and sends what it has long passed."""
    disabled = off(guarded, "a5_snapshot_age", "a5_keep_suffix")
    net = make(3, *disabled)
    a = net.elect("a")
    net.hold("ac")
    a.propose(b"one", b"two")
    net.pass_time(0.1)
    a.compact()
    a.propose(b"three", b"four")
    net.pass_time(0.1)
    assert set(a.outcomes.values()) == {Outcome.APPLIED}
    b = net["b"]
    assert b.log[-1] == (6, 1)
    a.core.replicator._progress["b:1"].acked = 0
    a.core.engine.set_next_index("b:1", 2)
    net.hold("ba")
    net.pass_time(0.05)
    net.flow()
    while net.waiting("ba"):  # the answers, until b has installed it or refused to
        net.deliver("ba")
        net.flow()
        if b.machine.restored:
            break
    assert (b.journal.last_index == 6) is guarded
    assert (b.applied == [b"one", b"two", b"three", b"four"]) is guarded


@guarded_or_not
def test_a5_an_install_claims_no_more_than_the_snapshot(make: MakeNet, guarded: bool) -> None:
    """Behind a kept suffix that the leader never sent there may be other entries."""
    disabled = off(guarded, "a5_ack_index")
    net = make(3, *disabled, logs={"b": [1, 1, 1, 1, 1]}, terms={"a": 1})
    b = net["b"]
    data = snapshot_bytes(b.snapshots / "made", 3, 1)
    net.links["a:1", "b:1"].append(
        (net.epoch("a:1", "b:1"), SnapshotChunk(2, 1, 3, 1, len(data), 0), data)
    )
    net.hold("ba")
    net.deliver("ab")
    net.flow()
    claims = [m.next_index - 1 for m in net.waiting("ba") if hasattr(m, "next_index")]
    assert claims == ([3] if guarded else [6])
    assert b.log[-1] == (6, 1)


@guarded_or_not
def test_a6_a_vote_that_arrives_twice_elects_nobody(make: MakeNet, guarded: bool) -> None:
    net = make(5, *off(guarded, "a6_vote_once"))
    a = net["a"]
    net.hold("ab", "ac", "ad", "ae")
    net.now += 1.0
    for node in net.nodes.values():
        node.core.engine.rearm()
    a.campaign()
    for voter in "bc":
        net.inject(f"{voter}a", PreVoteReply(0, a.core.election._round, True))
    net.flow()
    assert a.role is Role.CANDIDATE
    net.inject("ba", VoteReply(1))
    net.inject("ba", VoteReply(1))
    net.flow()
    assert (a.role is Role.CANDIDATE) is guarded


def test_a8_a_restarted_cluster_commits_nothing_that_is_not_replicated(make: MakeNet) -> None:
    """The library would restore a commit index beyond the log and count new entries by it."""
    net = make(3, logs=dict.fromkeys("abc", [1] * 9))
    a = net.elect("a")
    net.pass_time(0.2)
    commit = a.commit
    for letter in "abc":
        net.crash(letter)
    for letter in "abc":
        node = net.restart(letter)
        assert node.commit <= node.journal.last_index
        assert node.commit == 1  # behind no snapshot: the quorum tells the rest
    a = net.elect("a")
    net.flow()
    assert a.commit >= commit
    net.hold("ba", "ca")
    before = a.commit
    a.propose(*[b"new-%d" % number for number in range(5)])
    net.flow()
    assert a.commit == before
    assert a.outcomes == {}


@guarded_or_not
def test_a9_an_acknowledged_write_is_on_a_majority_of_disks(make: MakeNet, guarded: bool) -> None:
    net = make(3, *off(guarded, "a9_own_disk"))
    a = net.elect("a")
    net.hold("ac")
    a.disk.held = True
    a.propose(b"x")
    net.flow()
    assert net.holders(3, 1) == {"b"}
    assert (b"x" not in a.outcomes) is guarded
    if guarded:
        a.disk.held = False
        net.flow()
        assert net.holders(3, 1) == {"a", "b"}
        assert a.outcomes == {b"x": Outcome.APPLIED}


def test_a9_the_disks_of_any_majority_are_enough(make: MakeNet) -> None:
    """What the others hold is committed while the leader's disk is slow, and survives its end."""
    net = make(5)
    a = net.elect("a")
    a.disk.held = True
    for letter in "de":
        net.hold(f"a{letter}")
    a.propose(b"two of five")
    net.flow()
    index = a.journal.last_index
    assert net.holders(index, 1) == {"b", "c"}
    assert a.outcomes == {}
    a.disk.held = False
    net.flow()
    assert a.outcomes == {b"two of five": Outcome.APPLIED}
    a.disk.held = True
    for letter in "de":
        net.release(f"a{letter}")
    a.propose(b"four of five")
    net.flow()
    assert net.holders(index + 1, 1) == {"b", "c", "d", "e"}
    assert a.outcomes[b"four of five"] is Outcome.APPLIED


def test_a9_a_leader_whose_disk_is_far_behind_waits_for_it(make: MakeNet) -> None:
    net = make(3)
    a = net.elect("a")
    before = a.journal.last_index
    a.disk.held = True
    for number in range(OWN_LAG_ENTRIES_MAX + 5):
        a.propose(b"%d" % number)
    net.flow()
    assert net.holders(a.journal.last_index, 1) == {"b", "c"}
    assert len(a.outcomes) == OWN_LAG_ENTRIES_MAX
    assert a.commit == before + OWN_LAG_ENTRIES_MAX
    a.disk.held = False
    net.flow()
    assert len(a.outcomes) == OWN_LAG_ENTRIES_MAX + 5


@guarded_or_not
def test_a9_a_learner_learns_nothing_that_its_lone_voter_could_forget(
    make: MakeNet, guarded: bool
) -> None:
    """A single voter commits by itself: then the disk is all there is to wait for."""
    net = make(2, *off(guarded, "a9_own_disk"))
    a, b = net.elect("a"), net["b"]
    net.pass_time(0.2)
    ended: list[Outcome] = []
    a.core.membership.remove("b:1", lambda outcome, result: ended.append(outcome))
    net.pass_time(0.2)
    a.core.membership.add("b:1", "learner", lambda outcome, result: ended.append(outcome))
    net.pass_time(0.2)
    assert ended == [Outcome.APPLIED, Outcome.APPLIED]
    a.disk.held = True
    a.propose(b"x")
    net.pass_time(0.3)
    assert b.journal.last_index == a.journal.last_index
    assert (a.outcomes == {}) is guarded
    assert (b.applied == []) is guarded
    a.disk.held = False
    net.pass_time(0.3)
    assert b.applied == [b"x"]


@guarded_or_not
@pytest.mark.parametrize("guard", ["persist_then_speak", "b6_hard_state"])
def test_a_vote_survives_a_crash(make: MakeNet, guard: str, guarded: bool) -> None:
    """Else c votes twice in one term, and two leaders share it."""
    net = make(3, *off(guarded, guard))
    net.hold("ab", "ba", "bc", "cb", "ac")
    net["c"].disk.held = guard == "persist_then_speak"
    net.now += 1.0
    for node in net.nodes.values():
        node.core.engine.rearm()
    net["a"].campaign()
    for _ in ("pre-vote", "vote"):
        net.deliver("ac")
        net.flow()
    assert (net["a"].role is Role.LEADER) is (not guarded or guard == "b6_hard_state")
    net.crash("c")
    net.hold("ca")
    net.restart("c")
    net.release("bc", "cb")
    net.inject("bc", RequestVote(1, 9, 0, False))
    net.hold("cb")
    net.flow()
    voted_again = VoteReply(1) in net.waiting("cb")
    if guard == "persist_then_speak" and guarded:
        assert net["a"].role is not Role.LEADER  # the first vote was never heard
    else:
        assert voted_again is not guarded


@pytest.mark.parametrize("second", ["same", "other"])
def test_a_node_votes_once_in_a_term(make: MakeNet, second: str) -> None:
    net = make(3)
    net.hold("ca", "cb")
    net.now += 1.0
    net.inject("ac", RequestVote(4, 1, 0, False))
    net.flow()
    assert net.waiting("ca") == [VoteReply(4)]
    pair = "ac" if second == "same" else "bc"
    net.inject(pair, RequestVote(4, 9, 3, False))
    net.flow()
    assert [m for m in net.waiting("cb") if isinstance(m, VoteReply)] == []
    assert len([m for m in net.waiting("ca") if isinstance(m, VoteReply)]) == 1


def test_a_leader_gives_nobody_a_second_vote_of_its_own_term(make: MakeNet) -> None:
    net = make(3)
    a = net.elect("a")
    net.hold("ab")
    net.links["a:1", "b:1"].clear()
    net.inject("ba", RequestVote(a.term, 99, a.term - 1, True))
    net.flow()
    assert not any(isinstance(m, VoteReply) for m in net.waiting("ab"))
    assert a.role is Role.LEADER


@guarded_or_not
def test_persist_then_speak_an_ack_is_never_taken_back(make: MakeNet, guarded: bool) -> None:
    """Power fails right after the ack; the leader must not have counted it."""
    net = make(3, *off(guarded, "persist_then_speak"))
    a = net.elect("a")
    net.hold("ac", "ca")
    net["b"].disk.held = True
    a.propose(b"x")
    net.flow()
    told = a.outcomes.get(b"x")
    net.crash("b")
    net.crash("a")  # its disk is lost for good: a majority of disks is left
    net.heal()
    net.restart("b")
    net.elect("c")
    net.flow()
    kept = b"x" in net["c"].applied
    assert (told is None or kept) is guarded


@guarded_or_not
def test_an_answer_never_moves_to_a_later_connection(make: MakeNet, guarded: bool) -> None:
    """The follower said it on a connection whose leader may have forgotten everything since."""
    net = make(3, *off(guarded, "outbox_epoch"))
    a = net.elect("a")
    b = net["b"]
    b.disk.held = True
    a.propose(b"x")
    net.flow()
    net.disconnect("a:1", "b:1")
    net.hold("ba", "ab")
    net.connect("a:1", "b:1")
    b.disk.held = False
    net.flow()
    assert (net.waiting("ba") == []) is guarded


@guarded_or_not
def test_frames_of_an_earlier_connection_are_dropped(make: MakeNet, guarded: bool) -> None:
    """A replaced connection may still hold bytes; read late they would arrive out of order."""
    net = make(3, *off(guarded, "old_connection"))
    b = net["b"]
    old = net.epoch("a:1", "b:1")
    net.disconnect("a:1", "b:1")
    net.connect("a:1", "b:1")
    net.links["a:1", "b:1"].append((old, RequestVote(3, 9, 2, True), b""))
    net.flow()
    assert (b.term == 0) is guarded
    assert b.core.counters.dropped["old_connection"] == (1 if guarded else 0)


def test_c9_a_stranger_counts_for_nothing(make: MakeNet) -> None:
    """An ack of a removed node raised KeyError inside the library; a foreign vote was counted."""
    net = make(3)
    a = net.elect("a")
    net.connect("x:1", "a:1")
    a.core.network.inbox.clear()
    last, term = a.journal.last_index, a.term
    a.propose(b"new")
    for answer in (
        AppendReply(term, 1, last + 2, False, True),
        SnapshotReply(term, 1, 5, 0),
        ReadPong(term, 1),
        VoteReply(term),
        RequestVote(term + 5, 99, term, True),  # it may ask, but not as if the leader wanted it
    ):
        net.inject("xa", answer)
    net.flow()
    assert a.fatal == [] and a.role is Role.LEADER and a.term == term
    assert a.core.counters.dropped == {"foreign_vote": 1, "sticky_vote": 1}
