"""The schedules that break the bare library, played against one real core.

The letters are those of docs/consensus.md. Where it is cheap, the same schedule is played with the
guard switched off and must go wrong: so the test would notice if the guard were lost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from consensus_world import CLUSTER, World, command

from cluster.consensus import Outcome, Role
from cluster.consensus.guards import GUARDS, Guards, first_of_term, plan_append
from cluster.consensus.members import first_members
from cluster.consensus.mesh import Connected
from cluster.consensus.snapfile import write_content
from cluster.consensus.wire import (
    Append,
    AppendReply,
    PreVote,
    PreVoteReply,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    VoteReply,
)

MakeWorld = Callable[..., World]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeWorld:
    def build(*disabled: str, **options: object) -> World:
        return World(monkeypatch, tmp_path, disabled=frozenset(disabled), **options)  # type: ignore[arg-type]

    return build


MEMBERS = first_members(("a:1", "b:1", "c:1"))
OWN = [command("own3", 3, 1), command("own4", 4, 1)]
BASE = [command("base2", 2, 1)]


def snapshot_file(folder: Path, index: int, term: int, text: bytes) -> bytes:
    path = folder / "made"
    with path.open("wb") as file:
        chunks = [len(text).to_bytes(4, "big"), text]
        write_content(file, cluster=CLUSTER, index=index, term=term, members=MEMBERS, chunks=chunks)
    return path.read_bytes()


# A1 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [True, False])
def test_a1_a_first_chunk_commits_nothing(make: MakeWorld, guarded: bool) -> None:
    world = make(*([] if guarded else ["a1_chunk_commit"]), entries=BASE + OWN, term=1)
    world.connect("b:1")
    world.receive("b:1", SnapshotChunk(2, 1, 23, 2, 1000, 0), b"x" * 100)
    applied = world.machine.entries
    assert applied == ([] if guarded else [b"base2", b"own3", b"own4"])


# A2 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [True, False])
def test_a2_an_older_append_does_not_cut_acknowledged_entries(
    make: MakeWorld, guarded: bool
) -> None:
    world = make(*([] if guarded else ["a2_keep_matching"]), term=1)
    world.connect("b:1")
    first = [command("x", index, 1) for index in range(2, 9)]
    rest = [command("x", index, 1) for index in range(9, 15)]
    world.append("b:1", 1, (1, 0), *first, *rest)
    replies = world.append("b:1", 1, (1, 0), *first, seq=2)
    assert world.journal.last_index == (14 if guarded else 8)
    assert replies == [AppendReply(1, 2, 9, False, True)]


def test_a2_a_heartbeat_below_the_end_keeps_the_log(make: MakeWorld) -> None:
    world = make(entries=BASE + OWN, term=1)
    world.connect("b:1")
    replies = world.append("b:1", 1, (2, 1), commit=4)
    assert world.log == [(2, 1), (3, 1), (4, 1)]
    assert world.engine.commit_index() == 2  # 3 and 4 are not known to match this leader
    assert replies == [AppendReply(1, 1, 3, False, True)]


def test_a2_a_conflict_cuts_exactly_from_there(make: MakeWorld) -> None:
    world = make(entries=BASE + OWN, term=1)
    world.connect("b:1")
    world.append("b:1", 2, (1, 0), BASE[0], command("new", 3, 2))
    assert world.log == [(2, 1), (3, 2)]


def test_a2_a_conflict_with_a_committed_entry_stops_the_node(make: MakeWorld) -> None:
    world = make(entries=BASE + OWN, term=1)
    world.connect("b:1")
    world.append("b:1", 1, (4, 1), commit=4)
    assert world.machine.entries == [b"base2", b"own3", b"own4"]
    world.append("b:1", 2, (2, 1), command("other", 3, 2))
    assert "committed entry 3" in world.fatal[0]
    assert world.log == [(2, 1), (3, 1), (4, 1)]


# A3 ---------------------------------------------------------------------------------------------


def lead_with_four_batches(world: World) -> None:
    world.win_election("b:1")
    for number in range(4):
        world.core.propose(b"%d" % number, lambda outcome, result: None)
        world.run()


@pytest.mark.parametrize("guarded", [True, False])
def test_a3_an_early_ack_does_not_rewind(make: MakeWorld, guarded: bool) -> None:
    world = make(*([] if guarded else ["a3_no_rewind"]))
    lead_with_four_batches(world)
    assert world.engine.next_index("b:1") == 7
    world.disk.held = True
    resent = world.receive("b:1", AppendReply(1, 1, 3, False, True))
    appends = [m for m in resent if isinstance(m, Append) and m.count]
    assert (appends == []) is guarded


def test_a3_only_the_first_of_several_resets_counts(make: MakeWorld) -> None:
    world = make()
    lead_with_four_batches(world)
    progress = world.core.replicator._progress["b:1"]
    sequence = progress.seq
    first = world.receive("b:1", AppendReply(1, sequence - 2, 2, True, False))
    assert next(m.prev_index for m in first if isinstance(m, Append)) == 1
    for late in (sequence - 1, sequence):
        again = world.receive("b:1", AppendReply(1, late, 2, True, False))
        assert [m for m in again if isinstance(m, Append) and m.count] == []
    assert world.core.counters.dropped["stale_reset"] == 2


def test_a3_a_new_connection_of_which_the_news_waits_is_not_sent_the_same_twice(
    make: MakeWorld,
) -> None:
    """Seed 20001423: a leader that had paused heard of it last of all."""
    world = make()
    lead_with_four_batches(world)
    acked = world.journal.last_index - 3
    world.acknowledge("b:1", acked)
    world.network.sent.clear()
    world.network.epochs["b:1"] = 77
    world.core.propose(b"more", lambda outcome, result: None)
    world.run()
    world.network.inbox.append(Connected("b:1", 77))
    world.run()
    begins = [m.prev_index for m in world.sent_to("b:1") if isinstance(m, Append) and m.count]
    assert begins == [acked]


# A4 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [True, False])
def test_a4_an_ack_of_another_term_is_not_counted(make: MakeWorld, guarded: bool) -> None:
    peers = ("b:1", "c:1", "d:1", "e:1")
    world = make(*([] if guarded else ["a4_ack_term"]), peers=peers, entries=BASE + OWN, term=2)
    world.win_election("c:1", "d:1")
    last = world.journal.last_index
    world.acknowledge("d:1", last)
    world.acknowledge("b:1", last, term=1)  # out of a link that was stalled for two terms
    assert world.engine.commit_index() == (1 if guarded else last)


# A5 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [True, False])
def test_a5_an_older_snapshot_changes_nothing(
    make: MakeWorld, tmp_path: Path, guarded: bool
) -> None:
    world = make(*([] if guarded else ["a5_snapshot_age"]), entries=BASE + OWN, term=1)
    world.connect("b:1")
    world.append("b:1", 1, (4, 1), commit=4)
    data = snapshot_file(tmp_path, 3, 1, b"old")
    replies = world.receive("b:1", SnapshotChunk(1, 5, 3, 1, len(data), 0), data)
    assert (world.machine.restored == 0) is guarded
    assert (world.machine.entries == [b"base2", b"own3", b"own4"]) is guarded
    if guarded:
        assert replies == [AppendReply(1, 5, 5, False, True)]


def test_a5_a_damaged_snapshot_is_neither_installed_nor_acknowledged(
    make: MakeWorld, tmp_path: Path
) -> None:
    world = make(entries=BASE + OWN, term=1)
    world.connect("b:1")
    data = bytearray(snapshot_file(tmp_path, 9, 2, b"new"))
    data[70] ^= 1
    replies = world.receive("b:1", SnapshotChunk(2, 1, 9, 2, len(data), 0), bytes(data))
    assert not any(isinstance(reply, AppendReply) for reply in replies)
    assert world.machine.restored == 0
    assert world.log == [(2, 1), (3, 1), (4, 1)]
    again = world.receive("b:1", SnapshotChunk(2, 2, 9, 2, len(data), len(data)))
    assert again == [SnapshotReply(2, 2, 9, 0)]


def test_a5_an_install_replaces_a_conflicting_log(make: MakeWorld, tmp_path: Path) -> None:
    world = make(entries=BASE + OWN, term=1)
    world.connect("b:1")
    data = snapshot_file(tmp_path, 9, 2, b"new")
    replies = world.receive("b:1", SnapshotChunk(2, 1, 9, 2, len(data), 0), data)
    assert AppendReply(2, 1, 10, False, True) in replies
    assert world.machine.entries == [b"new"]
    assert (world.journal.first_index, world.journal.last_index) == (9, 9)
    assert world.engine.commit_index() == world.engine.applied_index() == 9


def test_a5_a_matching_suffix_survives_the_install(make: MakeWorld, tmp_path: Path) -> None:
    world = make(entries=BASE + OWN, term=1)
    world.connect("b:1")
    data = snapshot_file(tmp_path, 3, 1, b"new")
    world.receive("b:1", SnapshotChunk(1, 1, 3, 1, len(data), 0), data)
    assert world.machine.entries == [b"new"]
    assert world.journal.last_index == 4
    world.append("b:1", 1, (4, 1), commit=4)
    assert world.machine.entries == [b"new", b"own4"]


# A6 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [True, False])
def test_a6_a_voter_counts_once(make: MakeWorld, guarded: bool) -> None:
    peers = ("b:1", "c:1", "d:1", "e:1")
    world = make(*([] if guarded else ["a6_vote_once"]), peers=peers)
    world.connect(*peers)
    world.pass_time(0.7)
    question = next(m for _, m, _ in reversed(world.network.sent) if isinstance(m, PreVote))
    for voter in ("b:1", "c:1"):
        world.receive(voter, PreVoteReply(0, question.round, True))
    assert world.engine.role() is Role.CANDIDATE
    world.receive("b:1", VoteReply(1))
    world.receive("b:1", VoteReply(1))
    assert (world.engine.role() is Role.CANDIDATE) is guarded


# A9, persist then speak -------------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [True, False])
def test_a9_a_leader_does_not_count_itself_before_its_disk(make: MakeWorld, guarded: bool) -> None:
    world = make(*([] if guarded else ["a9_own_disk"]))
    world.win_election("b:1")
    world.acknowledge("b:1", 2)
    world.disk.held = True
    outcomes: list[Outcome] = []
    world.core.propose(b"x", lambda outcome, result: outcomes.append(outcome))
    world.run()
    world.acknowledge("b:1", 3)
    assert (outcomes == []) is guarded
    world.disk.held = False
    world.finish_disk()
    world.run()
    assert outcomes == [Outcome.APPLIED]


@pytest.mark.parametrize("guarded", [True, False])
def test_a9_a_lone_node_waits_for_its_disk(make: MakeWorld, guarded: bool) -> None:
    world = make(*([] if guarded else ["a9_own_disk"]), peers=())
    world.run()
    assert world.core.is_leader_ready()
    world.disk.held = True
    outcomes: list[Outcome] = []
    world.core.propose(b"x", lambda outcome, result: outcomes.append(outcome))
    world.run()
    assert (outcomes == []) is guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_acks_and_votes_wait_for_the_disk(make: MakeWorld, guarded: bool) -> None:
    world = make(*([] if guarded else ["persist_then_speak"]))
    world.connect("b:1", "c:1")
    world.disk.held = True
    vote = world.receive("b:1", RequestVote(1, 1, 0, False))
    ack = world.append("b:1", 1, (1, 0), command("x", 2, 1))
    assert (vote == [] and ack == []) is guarded
    world.network.sent.clear()
    world.disk.held = False
    world.finish_disk()
    expected = [VoteReply(1), AppendReply(1, 1, 3, False, True)]
    assert world.sent_to("b:1") == (expected if guarded else [])


def test_an_acknowledgement_is_not_sent_once_its_term_is_over(make: MakeWorld) -> None:
    """The next leader has removed the entry before the disk reported it."""
    world = make()
    world.connect("b:1", "c:1")
    world.disk.held = True
    world.append("b:1", 1, (1, 0), command("x", 2, 1))
    world.append("c:1", 2, (1, 0), command("y", 2, 2))
    world.network.sent.clear()
    world.disk.held = False
    world.finish_disk()
    assert world.sent_to("b:1") == []
    assert world.sent_to("c:1") == [AppendReply(2, 1, 3, False, True)]


def test_an_answer_of_an_old_connection_is_not_sent_on_a_new_one(make: MakeWorld) -> None:
    world = make()
    world.connect("b:1")
    world.disk.held = True
    world.append("b:1", 1, (1, 0), command("x", 2, 1))
    world.disconnect("b:1")
    world.network.epochs["b:1"] = 7
    world.disk.held = False
    world.finish_disk()
    assert world.sent_to("b:1") == []


def test_a_heartbeat_is_answered_while_the_disk_hangs(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    world.connect("b:1")
    world.disk.held = True
    world.append("b:1", 1, (2, 1), command("x", 3, 1))
    replies = world.append("b:1", 1, (3, 1), seq=2)
    assert replies == [AppendReply(1, 2, 3, False, True)]  # only what is durable: entry 2


# Apply ------------------------------------------------------------------------------------------


def test_a_machine_that_raises_does_not_stop_the_log(make: MakeWorld) -> None:
    world = make(peers=())
    world.run()
    original = world.machine.apply

    def poisoned(entry: bytes, index: int) -> object:
        if entry == b"poison":
            raise RuntimeError("a bug")
        return original(entry, index)

    world.machine.apply = poisoned  # type: ignore[method-assign]
    results: list[object] = []
    for entry in (b"one", b"poison", b"two"):
        world.core.propose(entry, lambda outcome, result: results.append(result))
    world.run()
    assert world.machine.entries == [b"one", b"two"]
    assert [type(result) for result in results] == [int, RuntimeError, int]
    assert world.core.counters.errors["machine_raised"] == 1


def test_a7_membership_and_version_commands_are_never_executed(make: MakeWorld) -> None:
    world = make()
    world.connect("b:1")
    evil = b"cos\nsystem\n(S'false'\ntR."
    world.append("b:1", 1, (1, 0), (b"\x02" + evil, 2, 1), (b"\x03" + evil, 3, 1), commit=3)
    assert world.engine.applied_index() == 3
    assert world.core.counters.errors["unknown_command"] == 2
    assert world.fatal == []


def test_another_entry_in_its_place_refuses_a_proposal_for_sure(make: MakeWorld) -> None:
    world = make()
    proposals = world.core.proposals
    ended: list[Outcome] = []
    proposals.submit(b"x", lambda outcome, result: ended.append(outcome), None)
    proposal = proposals.next_queued()
    assert proposal is not None
    proposals.entered(proposal, 5, 1)
    proposals.applied(5, 2, None)
    proposals.call_back()
    assert ended == [Outcome.REFUSED]


# Pure rules -------------------------------------------------------------------------------------


def test_a_reset_names_the_first_index_of_the_conflicting_term(make: MakeWorld) -> None:
    entries = [command("x", index, 1 if index < 5 else 2) for index in range(2, 40)]
    world = make(entries=entries, term=2)
    plan = plan_append(world.journal, 1, Append(3, 1, 1, 30, 3, 0), [])
    assert plan.reset_to == 5
    assert first_of_term(world.journal, 30, commit=10) == 11


def test_an_append_below_the_kept_log_is_taken_as_known(make: MakeWorld) -> None:
    entries = [command("x", index, 1) for index in range(2, 20)]
    world = make(entries=entries, term=1)
    world.journal.trim(10)
    plan = plan_append(world.journal, 15, Append(1, 1, 1, 4, 1, 3), entries[3:6])
    assert (plan.fatal, plan.reset_to, plan.entries) == (None, None, [])
    assert plan.matched == 10


def test_guards_are_known_by_name() -> None:
    guards = Guards(["a1_chunk_commit"])
    assert [name for name in GUARDS if not guards.on(name)] == ["a1_chunk_commit"]
    with pytest.raises(ValueError, match="unknown guards"):
        Guards(["no such guard"])


def test_a_node_that_waits_for_a_snapshot_knows_that_it_is_behind(make: MakeWorld) -> None:
    """Else it would call itself ready, and a rolling restart would go on to the next node."""
    world = make(entries=BASE, term=1)
    world.connect("b:1")
    assert world.core.known_commit_index() == 1
    world.append("b:1", 2, (50, 2), commit=50)
    assert world.core.known_commit_index() == 50
    world.receive("b:1", SnapshotChunk(2, 2, 70, 2, 1000, 0), b"x" * 100)
    assert world.core.known_commit_index() == 70
    assert world.engine.commit_index() == 1  # A1: knowing is not having
    assert world.machine.entries == []
