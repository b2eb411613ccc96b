"""Changes of membership: the rules on one scripted core, then real nodes that come and go."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from consensus_helpers import Cluster, TestNode, free_addresses, running, until
from consensus_world import World

from cluster.consensus import ConsensusConfig, MembershipError, Outcome, Role
from cluster.consensus.members import (
    CONFIG,
    Member,
    Members,
    adding,
    binding,
    config_entry,
    decode_members,
    encode_members,
    first_members,
    is_single_step,
    promoting,
    removing,
)
from cluster.consensus.mesh import Refused
from cluster.consensus.roster import Roster
from cluster.consensus.wire import Append, PreVote, PreVoteReply, RequestVote, VoteReply

MakeWorld = Callable[..., World]
ABC = first_members(("a:1", "b:1", "c:1"))


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeWorld:
    def build(*disabled: str, **options: object) -> World:
        return World(monkeypatch, tmp_path, disabled=frozenset(disabled), **options)  # type: ignore[arg-type]

    return build


# Values -----------------------------------------------------------------------------------------


def test_steps_change_one_voter_at_most() -> None:
    joined = adding(ABC, "d:1", "joining")
    assert joined.voters == ABC.voters and joined.find("d:1") == Member("d:1", "joining")
    voting = promoting(joined, "d:1")
    assert voting.voters == ("a:1", "b:1", "c:1", "d:1")
    smaller = removing(binding(voting, {"b:1": "f1"}), "b:1")
    assert smaller.voters == ("a:1", "c:1", "d:1") and smaller.removed == (("b:1", "f1"),)
    assert is_single_step(joined, voting) and not is_single_step(ABC, voting)
    assert decode_members(encode_members(smaller)) == smaller


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (lambda: adding(ABC, "b:1", "joining"), "already_member"),
        (lambda: removing(ABC, "x:1"), "not_a_member"),
        (lambda: removing(first_members(("a:1",)), "a:1"), "last_voter"),
    ],
)
def test_impossible_steps_say_why(step: Callable[[], Members], code: str) -> None:
    with pytest.raises(MembershipError) as caught:
        step()
    assert caught.value.code == code


@pytest.mark.parametrize("data", [b"", b"\xc0", encode_members(Members(1, ABC.members[::-1]))])
def test_an_unsound_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_members(data)


def test_a_folder_is_bound_for_good() -> None:
    bound = binding(ABC, {"b:1": "f1"})
    assert [bound.refusal("b:1", folder) for folder in ("f1", "f2")] == ["", "other_folder"]
    assert bound.refusal("c:1", "anything") == bound.refusal("stranger:1", "f1") == ""
    again = adding(removing(bound, "b:1"), "b:1", "joining")
    assert [again.refusal("b:1", folder) for folder in ("f1", "f2")] == ["removed", ""]


def test_the_roster_follows_the_log() -> None:
    roster = Roster("a:1", ABC, 1)
    four = adding(ABC, "d:1", "voter")
    roster.appended(5, four)
    assert roster.quorum == 3 and roster.voters == ("b:1", "c:1", "d:1")
    assert roster.at(4) == ABC and roster.at(5) == four
    roster.cut_from(5)
    assert roster.current == ABC and roster.quorum == 2
    three = removing(four, "c:1")
    roster.appended(6, four)
    roster.appended(7, three)
    assert roster.links == ("b:1", "c:1", "d:1") and roster.voters == ("b:1", "d:1")
    roster.settled(7)
    assert roster.links == ("b:1", "d:1")
    roster.cut_from(3)
    assert roster.current == three  # what is applied is never taken back


# One core ---------------------------------------------------------------------------------------


def lead(world: World) -> None:
    world.win_election("b:1")
    world.acknowledge("b:1", world.journal.last_index)
    assert world.core.is_leader_ready()


def add(world: World, node_id: str) -> list[Outcome]:
    ended: list[Outcome] = []
    world.core.membership.add(node_id, "joining", lambda outcome, _: ended.append(outcome))
    world.run()
    return ended


def refused(world: World, node_id: str) -> str:
    with pytest.raises(MembershipError) as caught:
        add(world, node_id)
    return caught.value.code


@pytest.mark.parametrize("guarded", [True, False])
def test_a7_no_second_change_before_the_first_is_committed(make: MakeWorld, guarded: bool) -> None:
    """PySyncObj #133: two pending changes made {A, D, E} and {B, C} acknowledge writes."""
    world = make(*([] if guarded else ["a7_one_change"]))
    lead(world)
    world.core.membership.remove("c:1", lambda outcome, _: None)
    if guarded:
        assert refused(world, "d:1") == "change_pending"
        world.acknowledge("b:1", world.journal.last_index)
    assert add(world, "d:1") == []
    assert world.core.roster.current.ids == ("a:1", "b:1", "d:1")


def test_a7_no_change_before_an_entry_of_the_own_term_is_committed(make: MakeWorld) -> None:
    world = make()
    world.win_election("b:1")
    assert refused(world, "d:1") == "change_pending"
    world.acknowledge("b:1", world.journal.last_index)
    assert add(world, "d:1") == []
    unguarded = make("a7_own_term")
    unguarded.win_election("b:1")
    assert add(unguarded, "d:1") == []


@pytest.mark.parametrize("guarded", [True, False])
def test_a7_a_new_member_votes_only_when_it_has_caught_up(make: MakeWorld, guarded: bool) -> None:
    world = make(*([] if guarded else ["a7_catch_up"]))
    lead(world)
    for number in range(400):
        world.core.propose(b"%d" % number, lambda outcome, result: None)
    world.run()
    world.acknowledge("b:1", world.journal.last_index)
    ended = add(world, "d:1")
    world.connect("d:1")
    world.acknowledge("b:1", world.journal.last_index)
    assert ended == [Outcome.APPLIED]
    assert ("d:1" in world.core.roster.voters) is not guarded
    if guarded:
        world.acknowledge("d:1", 10)
        assert "d:1" not in world.core.roster.voters
        world.acknowledge("d:1", world.journal.last_index)
        assert "d:1" in world.core.roster.voters and world.core.roster.quorum == 3


def test_a_learner_is_sent_everything_and_counts_for_nothing(make: MakeWorld) -> None:
    world = make()
    lead(world)
    ended = add(world, "d:1")
    world.connect("d:1")
    world.pass_time(0.1)
    assert any(isinstance(m, Append) for m in world.sent_to("d:1"))
    world.acknowledge("d:1", world.journal.last_index)
    assert ended == [] and world.engine.commit_index() < world.journal.last_index
    world.acknowledge("b:1", world.journal.last_index)
    assert ended == [Outcome.APPLIED]


@pytest.mark.parametrize("guarded", [True, False])
def test_a_lone_voter_sends_nothing_before_its_disk_knows_the_term(
    make: MakeWorld, guarded: bool
) -> None:
    """It elects itself at once; after a loss of power it would lead the same term once more, with
    other entries at the same places, and its learner could not tell them apart."""
    world = make(*([] if guarded else ["persist_then_speak"]), peers=())
    world.run()
    add(world, "b:1")
    world.connect("b:1")
    world.pass_time(0.1)
    world.disk.held = True
    world.engine.step_down()
    world.engine.set_deadline(0.0)
    world.core.propose(b"new", lambda outcome, result: None)
    world.pass_time(0.2)
    assert world.engine.is_leader() and world.engine.term() == 2
    sent = [m for m in world.sent_to("b:1") if isinstance(m, Append) and m.term == 2]
    assert (sent == []) is guarded
    world.disk.held = False
    world.finish_disk()
    world.pass_time(0.1)
    assert any(isinstance(m, Append) and m.term == 2 for m in world.sent_to("b:1"))


def test_a_configuration_counts_from_its_place_in_the_log(make: MakeWorld) -> None:
    world = make(entries=[(b"\x00x", 2, 1)], term=1)
    world.connect("b:1")
    four = adding(ABC, "d:1", "voter")
    world.append("b:1", 1, (2, 1), (config_entry(four), 3, 1))
    assert world.core.roster.quorum == 3 and world.network.peers == ("b:1", "c:1", "d:1")
    world.connect("c:1")
    world.append("c:1", 2, (2, 1), (b"\x00y", 3, 2))
    assert world.core.roster.quorum == 2 and world.network.peers == ("b:1", "c:1")


def test_a_node_that_is_no_voter_never_campaigns(make: MakeWorld) -> None:
    world = make(entries=[(b"\x00x", 2, 1)], term=1)
    world.connect("b:1", "c:1")
    without = Members(1, tuple(m for m in ABC.members if m.id != "a:1"))
    world.append("b:1", 1, (2, 1), (config_entry(without), 3, 1))
    world.pass_time(3)
    assert not [m for _, m, _ in world.network.sent if isinstance(m, PreVote | RequestVote)]
    # But it still gives its vote: the candidate may know more than this node does.
    replies = world.receive("c:1", RequestVote(2, 9, 2, True))
    assert replies == [VoteReply(2)]


@pytest.mark.parametrize("guarded", [True, False])
def test_a6_the_vote_of_a_node_that_is_no_member_does_not_count(
    make: MakeWorld, guarded: bool
) -> None:
    world = make(*([] if guarded else ["a6_members_only"]))
    world.connect("b:1", "c:1", "ghost:1")
    world.pass_time(0.7)
    question = next(m for _, m, _ in reversed(world.network.sent) if isinstance(m, PreVote))
    world.receive("ghost:1", PreVoteReply(0, question.round, True))
    assert world.engine.role() is Role.FOLLOWER
    world.receive("b:1", PreVoteReply(0, question.round, True))
    assert world.engine.role() is Role.CANDIDATE
    world.receive("ghost:1", VoteReply(world.engine.term()))
    assert (world.engine.role() is Role.CANDIDATE) is guarded
    world.receive("b:1", VoteReply(world.engine.term()))
    assert world.engine.role() is Role.LEADER


@pytest.mark.parametrize("guarded", [True, False])
def test_a7_a_member_with_another_folder_is_not_let_in(make: MakeWorld, guarded: bool) -> None:
    """A wiped disk has forgotten its votes and what it acknowledged."""
    world = make(*([] if guarded else ["a7_folder"]))
    world.network.folders = {"a:1": "fa", "b:1": "fb"}
    lead(world)
    world.acknowledge("b:1", world.journal.last_index)
    assert world.core.vet("b:1", "fb") == world.core.vet("c:1", "new") == ""
    assert (world.core.vet("b:1", "wiped") == "other_folder") is guarded


BOUND = binding(ABC, {"a:1": "fa", "b:1": "fb", "c:1": "fc"})


def a_log_of(*steps: Members) -> list[tuple[bytes, int, int]]:
    return [(config_entry(members), index, 1) for index, members in enumerate(steps, 2)]


def test_a7_a_wiped_disk_is_not_let_in_by_a_node_that_has_just_started(make: MakeWorld) -> None:
    """Nothing is applied then; with the wiped one it would be a majority that forgot an entry."""
    world = make(entries=a_log_of(BOUND), term=1)
    assert world.engine.applied_index() == 1
    assert world.core.vet("b:1", "fb") == ""
    assert world.core.vet("b:1", "wiped") == "folder_in_doubt"  # tried again, not told to end
    world.connect("c:1")
    world.append("c:1", 1, (2, 1), commit=2)
    assert world.core.vet("b:1", "wiped") == "other_folder"


def test_a_node_that_comes_back_with_a_new_folder_is_let_in_by_the_log(make: MakeWorld) -> None:
    gone = removing(BOUND, "b:1")
    back = adding(gone, "b:1", "joining")
    world = make(entries=a_log_of(BOUND), term=1)
    world.connect("c:1")
    world.append("c:1", 1, (2, 1), (config_entry(gone), 3, 1), commit=2)
    assert world.core.vet("b:1", "fb") == ""  # the removal may be taken back
    assert world.core.vet("b:1", "new") == "folder_in_doubt"
    world.append("c:1", 1, (3, 1), (config_entry(back), 4, 1), commit=2)
    assert world.core.vet("b:1", "new") == ""
    assert world.core.vet("b:1", "fb") == "folder_in_doubt"
    world.append("c:1", 1, (4, 1), commit=4)
    assert world.core.vet("b:1", "new") == ""
    assert world.core.vet("b:1", "fb") == "removed"


def test_a_member_is_known_by_its_folder_only_once_it_answers(make: MakeWorld) -> None:
    """The connection may be left from an earlier process whose folder was emptied since."""
    world = make()
    lead(world)
    add(world, "d:1")
    world.connect("d:1")
    world.network.folders = {"d:1": "of a dead process"}
    world.acknowledge("b:1", world.journal.last_index)
    world.pass_time(0.05)
    assert world.core.roster.current.find("d:1") == Member("d:1", "joining", "")
    world.network.folders = {"d:1": "new"}
    world.acknowledge("d:1", world.journal.last_index)
    assert world.core.roster.current.find("d:1") == Member("d:1", "joining", "new")


@pytest.mark.parametrize("joins", [False, True])
def test_who_is_to_be_added_does_not_end_because_somebody_is_behind(
    make: MakeWorld, joins: bool
) -> None:
    world = make(join=joins)
    world.network.folders = {"a:1": "new"}
    world.network.inbox.append(Refused("b:1", "other_folder"))
    world.run()
    assert bool(world.fatal) is not joins
    rebound = binding(removing(BOUND, "a:1"), {"b:1": "fb"})
    rebound = binding(adding(rebound, "a:1", "voter"), {"a:1": "new"})
    member = make(entries=a_log_of(BOUND, rebound), term=1)
    member.network.folders = {"a:1": "new"}
    member.network.inbox.append(Refused("b:1", "other_folder"))
    member.run()
    assert not member.fatal


def test_the_leader_does_not_remove_itself_nor_the_majority(make: MakeWorld) -> None:
    world = make()
    lead(world)
    for target, code in (("a:1", "is_leader"), ("x:1", "not_a_member")):
        with pytest.raises(MembershipError) as caught:
            world.core.membership.remove(target, lambda outcome, _: None)
        assert caught.value.code == code
    world.disconnect("c:1")
    with pytest.raises(MembershipError) as caught:
        world.core.membership.remove("b:1", lambda outcome, _: None)
    assert caught.value.code == "no_majority" and "c:1" in str(caught.value)


def test_an_unreadable_configuration_from_a_leader_is_not_stored(make: MakeWorld) -> None:
    world = make(term=1)
    world.connect("b:1")
    world.append("b:1", 1, (1, 0), (CONFIG + b"\xc1", 2, 1))
    assert world.log == [] and world.core.counters.dropped["unsound_entries"] == 1


# Real nodes -------------------------------------------------------------------------------------


def newcomer(cluster: Cluster, name: str, **settings: object) -> TestNode:
    address = free_addresses(1)[0]
    some = cluster.nodes[0].config
    config = ConsensusConfig(
        node_id=address,
        listen=address,
        peers=tuple(node.id for node in cluster.nodes),
        data_dir=cluster.folder / name,
        cluster_secret=some.cluster_secret,
        meta={"http": name},
        join=True,
        **settings,  # type: ignore[arg-type]
    )
    node = TestNode(config)
    cluster.nodes.append(node)
    return node


async def is_voter(cluster: Cluster, node: TestNode) -> None:
    await until(lambda: all(node.id in n.consensus.members().voters for n in cluster.nodes))


async def test_a_node_joins_catches_up_and_votes(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        await cluster.commit(*(b"%d" % n for n in range(50)))
        node = newcomer(cluster, "new")
        await node.consensus.start()
        leader = await cluster.leader()
        assert node.consensus.role is Role.FOLLOWER
        await leader.consensus.add_member(node.id, 5000)
        await is_voter(cluster, node)
        assert len(await cluster.all_equal()) == 50
        # Now it is a member like any other, and the leader may go.
        await leader.consensus.stop()
        await cluster.commit(b"after")
        await node.consensus.stop()
        node = await cluster.restart(cluster.nodes.index(node), join=False)
        await is_voter(cluster, node)


async def test_a_node_joins_by_snapshot_and_keeps_the_members(tmp_path: Path) -> None:
    small = {"trailing_entries": 5, "segment_bytes": 2000}
    async with running(tmp_path, 3, **small) as cluster:
        await cluster.commit(*(b"entry %d" % n for n in range(200)))
        leader = await cluster.leader()
        for node in cluster.nodes:
            await node.consensus.snapshot_now()
        node = newcomer(cluster, "new", **small)
        await node.consensus.start()
        await leader.consensus.add_member(node.id, 5000)
        await is_voter(cluster, node)
        await cluster.commit(b"more")
        await until(lambda: len(node.machine.entries) == 201)
        assert node.machine.restored == 1
        await node.consensus.snapshot_now()
        await node.consensus.stop()
        node = await cluster.restart(cluster.nodes.index(node))
        assert len(node.consensus.members().voters) == 4


async def test_members_leave_one_by_one_and_the_leader_too(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        await cluster.commit(b"one")
        leader = await cluster.leader()
        await until(lambda: all(m.folder for m in leader.consensus.members().members))
        gone = cluster.followers(leader)[0]
        await leader.consensus.remove_member(gone.id, 5000)
        await until(lambda: gone.fatal)
        assert "was removed" in gone.fatal.pop()
        await gone.consensus.stop()
        cluster.nodes.remove(gone)
        with pytest.raises(MembershipError) as caught:
            await leader.consensus.remove_member(leader.id, 5000)
        assert caught.value.code == "is_leader"
        await leader.consensus.transfer_leadership(None, 5000)
        heir = await cluster.leader(but=leader)
        await heir.consensus.remove_member(leader.id, 5000)
        await until(lambda: leader.fatal)
        leader.fatal.clear()
        await leader.consensus.stop()
        cluster.nodes.remove(leader)
        await cluster.commit(b"alone")
        assert heir.machine.entries == [b"one", b"alone"]
        assert heir.consensus.members().voters == (heir.id,)


async def test_one_node_grows_to_three(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        await cluster.commit(b"one")
        for name in ("second", "third"):
            leader = await cluster.leader()
            node = newcomer(cluster, name)
            await node.consensus.start()
            await leader.consensus.add_member(node.id, 5000)
            await is_voter(cluster, node)
        first = cluster.nodes[0]
        await first.consensus.stop()
        await cluster.commit(b"without the first")
        assert (await cluster.leader()).machine.entries == [b"one", b"without the first"]
        await cluster.restart(0)
        assert len(await cluster.all_equal()) == 2


async def test_a_removed_or_emptied_node_is_not_let_in_again(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        await cluster.commit(b"one")
        leader = await cluster.leader()
        await until(lambda: all(m.folder for m in leader.consensus.members().members))
        victim = cluster.followers(leader)[0]
        position = cluster.nodes.index(victim)
        await victim.consensus.stop()
        shutil.rmtree(victim.config.data_dir)
        emptied = await cluster.restart(position)
        await until(lambda: emptied.fatal)
        assert "another data folder" in emptied.fatal.pop()
        await emptied.consensus.stop()
        # Replaced in the right order, the same address comes back.
        await leader.consensus.remove_member(victim.id, 5000)
        shutil.rmtree(victim.config.data_dir)
        fresh = cluster.nodes[position] = TestNode(replace(victim.config, join=True))
        await fresh.consensus.start()
        leader = await cluster.leader()
        await leader.consensus.add_member(fresh.id, 5000)
        await is_voter(cluster, fresh)
        await cluster.commit(b"two")
        assert await cluster.all_equal() == [b"one", b"two"]


async def test_only_the_leader_changes_members_and_one_at_a_time(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        leader = await cluster.leader()
        await until(lambda: all(m.folder for m in leader.consensus.members().members))
        addresses = free_addresses(2)
        with pytest.raises(MembershipError) as caught:
            await cluster.followers(leader)[0].consensus.add_member(addresses[0], 1000)
        assert caught.value.code == "not_leader"
        await leader.consensus.add_member(addresses[0], 5000)  # never appears
        with pytest.raises(MembershipError) as caught:
            await leader.consensus.add_member(addresses[1], 5000)
        assert caught.value.code == "change_pending" and addresses[0] in str(caught.value)
        await cluster.commit(b"unharmed")
        await leader.consensus.remove_member(addresses[0], 5000)
        assert len(leader.consensus.members().members) == 3
