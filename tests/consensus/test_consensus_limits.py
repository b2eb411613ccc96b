"""The limits of the library that are not about safety, and its traps: none of them is left.

Rows E and F of docs/consensus.md. Nothing here measures time: what is tested is that no step waits
for a timer, repeats work per follower, or grows without a bound.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from consensus_helpers import ListMachine, free_addresses, until
from consensus_net import Net, appends_in
from consensus_world import World

from cluster.consensus import Consensus, ConsensusConfig, Outcome, Role, pin
from cluster.consensus.engine import Engine
from cluster.consensus.wire import ENTRY_HEAD, Append, encode_entries

MakeWorld = Callable[..., World]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeWorld:
    def build(*disabled: str, **options: object) -> World:
        return World(monkeypatch, tmp_path, disabled=frozenset(disabled), **options)  # type: ignore[arg-type]

    return build


def ignore(outcome: Outcome, result: object) -> None: ...


# E1: waiting for timers -------------------------------------------------------------------------


def test_e1_a_commit_waits_for_no_timer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The library sends what was proposed up to 100 ms later, at its next heartbeat."""
    net = Net(monkeypatch, tmp_path)
    a = net.elect("a")
    before = net.now
    a.propose(b"x")
    net.flow()
    assert net.now == before
    assert a.outcomes == {b"x": Outcome.APPLIED}


def test_e1_a_burst_shares_one_message_per_follower(make: MakeWorld) -> None:
    """Without its batch mode the library sends one per command, and wakes itself by a pipe."""
    world = make(uncommitted_entries_max=200_000)
    world.win_election("b:1")
    world.acknowledge("b:1", 2)
    world.network.sent.clear()
    for _ in range(300):
        world.core.propose(b"x", ignore)
    world.core.run()
    assert [m.count for m in appends_in(world.sent_to("b:1")) if m.count] == [300]


def test_e1_any_number_of_proposals_may_wait_for_the_next_turn(make: MakeWorld) -> None:
    """BlockingIOError after 65,536 of them in the library, with the last one queued (d10)."""
    world = make(uncommitted_entries_max=100_000)
    world.win_election("b:1")
    for _ in range(70_000):
        world.core.propose(b"x", ignore)
    world.core.run()
    assert 500 <= world.journal.last_index < 2000  # taken in turns, so that heartbeats go out


# E2: loop stalls --------------------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [True, False])
def test_e2_a_long_backlog_is_applied_in_slices(make: MakeWorld, guarded: bool) -> None:
    """One tick of the library applies whatever is committed: 5,000 entries in r26."""
    world = make(*([] if guarded else ["apply_slice"]), peers=())
    world.run()
    apply = world.machine.apply

    def slow(entry: bytes, index: int) -> object:
        world.now += 0.006
        return apply(entry, index)

    world.machine.apply = slow  # type: ignore[method-assign]
    for _ in range(50):
        world.core.propose(b"x", ignore)
    world.core.run()
    world.finish_disk()
    world.core.run()
    assert (len(world.machine.entries) <= 5) is guarded
    for _ in range(20):
        world.core.run()
    assert len(world.machine.entries) == 50


# E3: amplification ------------------------------------------------------------------------------


def test_e3_a_batch_is_encoded_once_for_all_followers(
    make: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library pickles and compresses per follower: 12.6 ms for 100 kB (d11)."""
    encoded: list[int] = []

    def counting(entries: list[tuple[bytes, int, int]]) -> object:
        encoded.append(len(entries))
        return encode_entries(entries)

    monkeypatch.setattr("cluster.consensus.replicator.encode_entries", counting)
    peers = ("b:1", "c:1", "d:1", "e:1")
    world = make(peers=peers)
    world.win_election("b:1", "c:1")
    for peer in peers:
        world.acknowledge(peer, 2)
    encoded.clear()
    world.network.sent.clear()
    world.core.propose(b"x" * 1000, ignore)
    world.core.run()
    blobs = [blob for _, message, blob in world.network.sent if isinstance(message, Append)]
    assert encoded == [1]
    assert len(blobs) == 4
    assert all(blob is blobs[0] for blob in blobs)
    assert blobs[0].size == 1000 + 1 + ENTRY_HEAD.size  # the payload as it is


@pytest.mark.parametrize("round_trip", [1, 4, 10])
@pytest.mark.parametrize("guarded", [True, False])
def test_e3_each_entry_is_sent_once_whatever_the_round_trip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, round_trip: int, guarded: bool
) -> None:
    """Ticks of 1 ms: the library sends 2.0, 4.5 and 11.0 times at these round trips (A3)."""
    net = Net(monkeypatch, tmp_path, disabled=() if guarded else ("a3_no_rewind",))
    a = net.elect("a")
    net.flow()
    sent_before = a.core.counters.entries_sent
    net.hold("ba", "ca")
    due: list[int] = []
    for tick in range(200):
        net.now += 0.001
        a.propose(b"%d" % tick)
        net.flow()
        due.append(len(net.waiting("ba")))
        if tick >= round_trip:  # what b and c answered so many ticks ago arrives now
            late = due.pop(0)
            for pair in ("ba", "ca"):
                net.deliver(pair, min(late, len(net.waiting(pair))))
            due = [max(0, waiting - late) for waiting in due]
    net.heal()
    net.pass_time(0.1)
    committed = len(a.outcomes)
    assert committed == 200
    per_follower = (a.core.counters.entries_sent - sent_before) / 2 / committed
    assert (per_follower <= 1.1) is guarded


# E4: traps of the library -----------------------------------------------------------------------


def test_e4_the_clock_is_the_slewed_one() -> None:
    """The library prefers CLOCK_MONOTONIC_RAW through a lambda."""
    assert pin.RealSurroundings.monotonic is time.monotonic


def test_e4_the_engine_has_no_property_and_replicates_no_method(make: MakeWorld) -> None:
    """Its constructor evaluates every property, and commands would be numbered by name."""
    assert [name for name, value in vars(Engine).items() if isinstance(value, property)] == []
    assert make().engine._methodToID == {}


def test_e4_nothing_of_the_library_is_asked_to_dump_or_compact(
    make: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("the library's own serializer was used")

    for name in ("serialize", "deserialize", "checkSerializing", "getTransmissionData"):
        monkeypatch.setattr(f"pysyncobj.serializer.Serializer.{name}", refuse)
    world = make(peers=())
    world.run()
    world.engine.forceLogCompaction()
    for _ in range(20):
        world.core.propose(b"x", ignore)
        world.pass_time(0.5)
    world.run()
    assert len(world.machine.entries) == 20
    assert world.fatal == []


def test_e4_nobody_registers_a_tick_callback(make: MakeWorld) -> None:
    """One that adds another would wait for the library's own lock for ever."""
    world = make()
    world.run()
    world.pass_time(0.5)
    assert world.engine._SyncObj__onTickCallbacks == []
    assert not world.engine._SyncObj__onTickCallbacksLock.locked()


async def test_c10_an_observer_that_raises_does_not_spoil_an_election(tmp_path: Path) -> None:
    """In the library a leader without its no-op is left, with a KeyError every tick (r24)."""
    address = free_addresses(1)[0]
    machine = ListMachine()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))

    def raising(*arguments: object) -> None:
        raise RuntimeError("an observer's bug")

    config = ConsensusConfig(address, address, (), tmp_path)
    node = Consensus(config, machine, raising)
    await node.start()
    try:
        await until(lambda: node.is_leader_ready)
        node.propose(b"x", ignore)
        await until(lambda: machine.entries == [b"x"])
        assert node.role is Role.LEADER
        assert complaints
    finally:
        await node.stop()


# D1, F ------------------------------------------------------------------------------------------


async def test_d1_a_pickle_from_a_stranger_is_not_run(tmp_path: Path) -> None:
    """One frame of the library's protocol was remote code execution (d12)."""
    import struct
    import zlib

    address = free_addresses(1)[0]
    config = ConsensusConfig(address, address, (), tmp_path / "data")
    node = Consensus(config, ListMachine(), lambda *_: None)
    await node.start()
    try:
        proof = tmp_path / "it-ran"
        bomb = zlib.compress(b"cos\nsystem\n(S'touch %s'\ntR." % str(proof).encode())
        host, port = address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(struct.pack("i", len(bomb)) + bomb)
        assert await reader.read() == b""  # cut off without a word
        writer.close()
        assert not proof.exists()
    finally:
        await node.stop()


def test_f_every_leadership_begins_with_an_entry_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net = Net(monkeypatch, tmp_path)
    for letter in "abca":
        node = net.elect(letter)
        net.flow()
        assert node.terms[-1] == node.term
    assert net["a"].terms == [1, 2, 3, 4]
