"""A full disk is the one fault of a disk that passes: nobody dies of it, nothing is lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from consensus_helpers import Cluster, TestNode, until
from consensus_world import World, command
from crash_rig import Rig

from chaos.sim.disk import MemoryStorage, Nothing
from cluster.consensus import DISK_FULL, Consensus, Outcome, Role
from cluster.consensus.disk import DiskThread, GroupCommit
from cluster.consensus.host import RealHost
from cluster.consensus.records import BASE, ENTRY, hard_state, record
from cluster.consensus.segments import Batch, DiskFullError
from cluster.consensus.wire import Append, AppendReply, NoSpace, PreVote, RequestVote, VoteReply

MakeWorld = Callable[..., World]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeWorld:
    return lambda **settings: World(monkeypatch, tmp_path, **settings)


# The journal -----------------------------------------------------------------------------------


def a_rig(capacity_bytes: int) -> tuple[Rig, GroupCommit]:
    storage = MemoryStorage(capacity_bytes=capacity_bytes)
    storage.make_folder(Path("/node"))
    storage.sync_folder(Path("/"))
    rig = Rig(storage)
    rig.start()
    return rig, GroupCommit(rig.files)


def batch(first: int, size: int) -> Batch:
    opening = [b"".join(hard_state(1, None)), *record(BASE, first - 1, 1)]
    return Batch(first, first, record(ENTRY, first, 1, b"x" * size), opening)


def test_a_disk_is_called_full_while_terms_and_votes_still_fit() -> None:
    _, commit = a_rig(capacity_bytes=3000)
    commit.tidy()
    index = 1
    while not commit.is_full:
        index += 1
        commit.gather(batch(index, 200))
        assert commit.sync() is not None, "it was called full too late"
        commit.tidy()
    for term in range(2, 5):
        commit.gather(Batch(100 + term, index, list(hard_state(term, "b:1")), []))
        assert commit.sync() is not None


def test_what_did_not_fit_is_written_when_there_is_space_and_nothing_is_lost() -> None:
    rig, commit = a_rig(capacity_bytes=2000)
    rig.vote(1, "a:1")
    rig.append(2, size=200)
    rig.flush()
    rig.append(30, size=200)
    for written in rig.batches:
        commit.gather(written)
    assert commit.sync() is None
    assert commit.is_full
    assert commit.sync() is None
    rig.storage.capacity_bytes = 1 << 30
    last = commit.sync()
    assert last is rig.batches[-1]
    commit.tidy()
    assert not commit.is_full
    rig.storage.power_loss(Nothing())
    rig.promised = rig.state()
    after = Rig(rig.storage)
    after.start()
    after.recovered_from(rig)


async def test_an_idle_disk_thread_tries_again_when_a_write_does_not_fit() -> None:
    """Nobody else wakes it: a node without space is sent nothing more."""
    rig, _ = a_rig(capacity_bytes=1 << 30)
    durable: asyncio.Queue[Batch] = asyncio.Queue()
    errors: list[str] = []
    post = asyncio.get_running_loop().call_soon_threadsafe
    disk = DiskThread(rig.files, post, lambda last, *_: durable.put_nowait(last), errors.append)
    first, second = batch(2, 20), batch(3, 20)
    disk.write(first)
    assert await durable.get() is first
    await until(lambda: disk._is_tidy)
    rig.files.write = never  # type: ignore[method-assign]
    disk.write(second)
    await until(lambda: disk.is_full)
    del rig.files.write  # type: ignore[method-assign]
    assert await asyncio.wait_for(durable.get(), 60) is second
    await until(lambda: not disk.is_full)
    disk.close()
    assert errors == []


@pytest.mark.parametrize("room", range(0, 2000, 61))
def test_a_disk_that_fills_at_any_byte_keeps_every_promise(room: int) -> None:
    """Also where space cannot be taken in advance: then a write stops in the middle."""
    rig, commit = a_rig(capacity_bytes=1 << 30)
    rig.storage.allocate = lambda descriptor, size: False  # type: ignore[method-assign]
    rig.vote(1, "a:1")
    rig.append(2, size=200)
    rig.flush()
    rig.storage.capacity_bytes = rig.storage.used_bytes() + room
    rig.possible.append(rig.state())
    rig.append(6, size=200)
    rig.possible.append(rig.state())
    for written in rig.batches:
        commit.gather(written)
    if commit.sync() is not None:
        rig.promised = rig.state()
    rig.storage.power_loss(Nothing())
    rig.storage.capacity_bytes = 1 << 30
    after = Rig(rig.storage)
    after.start()
    after.recovered_from(rig)


def test_a_first_start_on_a_full_disk_is_refused_in_one_line() -> None:
    storage = MemoryStorage(capacity_bytes=100)
    storage.make_folder(Path("/node"))
    with pytest.raises(Exception, match="free space or choose"):
        Rig(storage).start()


# Roles -----------------------------------------------------------------------------------------


def test_a_follower_without_space_follows_but_takes_nothing(make: MakeWorld) -> None:
    world = make()
    world.connect("b:1", "c:1")
    world.append("b:1", 1, (1, 0), command("a", 2, 1))
    world.disk.is_full = True
    said = world.append("b:1", 1, (2, 1), command("b", 3, 1), seq=2)
    assert world.log == [(2, 1)]
    assert NoSpace(1) in said
    assert [m.next_index for m in said if isinstance(m, AppendReply)] == [3]
    world.pass_time(0.2)
    assert world.engine.leader() == "b:1"
    world.disk.is_full = False
    said = world.append("b:1", 1, (2, 1), command("b", 3, 1), seq=3)
    assert world.log == [(2, 1), (3, 1)]
    assert said == [AppendReply(1, 3, 4, False, True)]


def test_a_follower_without_space_takes_back_no_acknowledgement(make: MakeWorld) -> None:
    """Its conflicting tail stays for a while; what lies before it was acknowledged and stands."""
    world = make()
    world.connect("b:1", "c:1")
    tail = [command(text, index, 1) for index, text in enumerate("wxyz", 2)]
    world.append("b:1", 1, (1, 0), *tail)
    world.disk.is_full = True
    said = world.append("c:1", 2, (3, 1), command("other", 4, 2), seq=1)
    assert AppendReply(2, 1, 4, False, True) in said
    said = world.append("c:1", 2, (4, 2), command("more", 5, 2), seq=2)
    assert AppendReply(2, 2, 4, True, False) in said
    world.disk.is_full = False
    world.append("c:1", 2, (3, 1), command("other", 4, 2), seq=3)
    assert world.log == [(2, 1), (3, 1), (4, 2)]


def test_a_node_without_space_votes_but_does_not_campaign(make: MakeWorld) -> None:
    world = make()
    world.connect("b:1", "c:1")
    world.disk.is_full = True
    world.pass_time(3.0)
    assert not any(isinstance(m, PreVote | RequestVote) for _, m, _ in world.network.sent)
    assert world.engine.role() is Role.FOLLOWER
    assert VoteReply(1) in world.receive("b:1", RequestVote(1, 1, 0, False))
    world.disk.is_full = False
    world.pass_time(1.0)
    assert any(isinstance(m, PreVote) for _, m, _ in world.network.sent)


def outcomes_of(world: World, count: int = 1) -> list[tuple[Outcome, object]]:
    ended: list[tuple[Outcome, object]] = []
    for _ in range(count):
        world.core.propose(b"x", lambda outcome, result: ended.append((outcome, result)))
    world.run()
    return ended


def test_a_leader_without_space_refuses_and_names_the_reason(make: MakeWorld) -> None:
    world = make()
    world.win_election("b:1")
    world.disk.is_full = True
    world.run()
    assert outcomes_of(world) == [(Outcome.REFUSED, f"{DISK_FULL}: on the leader, a:1")]
    world.disk.is_full = False
    world.run()
    assert outcomes_of(world) == []  # on its way


def test_a_leader_names_a_successor_that_has_space(make: MakeWorld) -> None:
    world = make()
    world.win_election("b:1", "c:1")
    world.disk.is_full = True
    world.run()
    assert world.core.space.successor() is None  # it may pass at once
    world.receive("b:1", NoSpace(1))
    world.pass_time(0.25)
    world.receive("b:1", NoSpace(1))
    world.acknowledge("c:1", 1)
    assert world.core.space.successor() == "c:1"
    assert world.core.space.successor() is None  # not again and again


def test_a_leader_refuses_while_a_majority_has_no_space(make: MakeWorld) -> None:
    world = make()
    world.win_election("b:1")
    world.receive("b:1", NoSpace(1))
    assert outcomes_of(world) == []
    world.receive("c:1", NoSpace(1))
    assert outcomes_of(world) == [(Outcome.REFUSED, f"{DISK_FULL}: on b:1, c:1")]
    for _ in range(30):  # nobody says it any more, but all are alive
        world.pass_time(0.05)
        world.acknowledge("b:1", world.journal.last_index)
    assert outcomes_of(world) == []


def test_entries_are_not_pressed_on_a_follower_without_space(make: MakeWorld) -> None:
    world = make()
    world.win_election("b:1")
    world.acknowledge("b:1", world.journal.last_index)
    world.acknowledge("c:1", world.journal.last_index)
    world.receive("c:1", NoSpace(1))
    world.network.sent.clear()
    outcomes_of(world, 5)
    assert counts(world, "b:1") == [5]
    assert counts(world, "c:1") == []
    sent = []
    for _ in range(30):
        world.pass_time(0.05)
        sent += counts(world, "c:1")
        world.acknowledge("b:1", world.journal.last_index)
    assert sent == [5]


def counts(world: World, peer: str) -> list[int]:
    """Entries per message, without heartbeats."""
    return [m.count for m in world.sent_to(peer) if isinstance(m, Append) and m.count]


# Whole clusters ----------------------------------------------------------------------------------


class MemoryHost(RealHost):
    def __init__(self, storage: MemoryStorage) -> None:
        self.storage = storage


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path, 3, segment_bytes=20_000)
    for node in made.nodes:
        on_memory(node)
    await made.start()
    try:
        yield made
        assert [node.fatal for node in made.nodes] == [[], [], []]
    finally:
        await made.stop()


def on_memory(node: TestNode) -> None:
    config = replace(node.config, on_fatal=node.fatal.append)
    node.storage = MemoryStorage()  # type: ignore[attr-defined]
    host = MemoryHost(node.storage)  # type: ignore[attr-defined]
    node.consensus = Consensus(config, node.machine, node._on_role, host)


def fill(node: TestNode) -> None:
    node.storage.capacity_bytes = node.storage.used_bytes()  # type: ignore[attr-defined]


def empty(node: TestNode) -> None:
    node.storage.capacity_bytes = 1 << 40  # type: ignore[attr-defined]


async def write_until_full(cluster: Cluster, node: TestNode) -> list[bytes]:
    written = []
    while not node.consensus.status()["disk_full"]:
        entry = b"%06d" % len(written) + bytes(3000)
        leader = await cluster.leader()
        outcome, _ = await leader.propose(entry)
        if outcome is Outcome.APPLIED:
            written.append(entry)
    return written


async def commit_when_possible(cluster: Cluster, entry: bytes) -> None:
    """The word of a member that is full holds for a second after it has space again."""
    while True:
        outcome, _ = await (await cluster.leader()).propose(entry)
        if outcome is Outcome.APPLIED:
            return
        await asyncio.sleep(0.05)


async def test_one_full_follower_is_not_noticed_by_clients(cluster: Cluster) -> None:
    leader = await cluster.leader()
    behind = cluster.followers(leader)[0]
    fill(behind)
    written = await write_until_full(cluster, behind)
    more = [b"more %d" % number for number in range(50)]
    await cluster.commit(*more)
    assert behind.machine.entries != [*written, *more]
    empty(behind)
    assert await cluster.all_equal() == [*written, *more]


async def test_a_full_leader_hands_over(cluster: Cluster) -> None:
    first = await cluster.leader()
    fill(first)
    written = await write_until_full(cluster, first)
    second = await cluster.leader(but=first)
    await until(lambda: first.consensus.role is not Role.LEADER)
    outcome, _ = await second.propose(b"after")
    assert outcome is Outcome.APPLIED
    empty(first)
    assert (await cluster.all_equal()) == [*written, b"after"]


async def test_a_full_cluster_refuses_clearly_and_recovers(cluster: Cluster) -> None:
    await cluster.commit(b"before")
    for node in cluster.nodes:
        fill(node)
    leader = await cluster.leader()
    await write_until_full(cluster, leader)
    await until(lambda: all(node.consensus.status()["disk_full"] for node in cluster.nodes))

    async def refused() -> str:
        while True:
            outcome, why = await (await cluster.leader()).propose(b"no room for this")
            if outcome is Outcome.REFUSED and DISK_FULL in str(why):
                return str(why)
            await asyncio.sleep(0.02)

    assert await asyncio.wait_for(refused(), 60)
    for node in cluster.nodes:
        empty(node)
    await commit_when_possible(cluster, b"after")
    states = await cluster.all_equal()
    assert states[0] == b"before"
    assert states[-1] == b"after"
    assert b"no room for this" not in states


async def test_a_disk_that_fills_for_good_ends_in_no_wrong_answer(cluster: Cluster) -> None:
    """No space, not even what was set aside: nothing is acknowledged that is not on disk."""
    leader = await cluster.leader()
    for node in cluster.nodes:
        node.consensus._disk._files.write = never  # type: ignore[union-attr, method-assign]
    future = leader.propose(b"unwritten")
    await until(lambda: any(node.consensus.status()["disk_full"] for node in cluster.nodes))
    assert not future.done()
    for node in cluster.nodes:
        del node.consensus._disk._files.write  # type: ignore[union-attr]
    assert (await asyncio.wait_for(future, 60))[0] in (Outcome.APPLIED, Outcome.UNKNOWN)
    await commit_when_possible(cluster, b"later")
    assert (await cluster.all_equal())[-1] == b"later"


def never() -> None:
    raise DiskFullError("No space left on device")
