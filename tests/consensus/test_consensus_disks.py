"""What a node may believe of its disk after a crash (B1 to B13), with and without the guards.

On a disk in memory that forgets everything it was not told to keep. Crashes at every single storage
operation are tested elsewhere; here each defect of the library has its own schedule.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from consensus_helpers import ListMachine, free_addresses, running, until
from consensus_net import CLUSTER, Net, NetDisk
from consensus_world import World, command

from chaos.sim.disk import MemoryStorage, Nothing, PowerCut, Whims
from cluster.consensus import Consensus, ConsensusConfig, ConsensusStartError, Outcome
from cluster.consensus.child import run_child
from cluster.consensus.disk import SegmentFiles
from cluster.consensus.engine import SEND_BYTES, engine_settings
from cluster.consensus.guards import ALL_ON, Guards
from cluster.consensus.host import RealHost
from cluster.consensus.install import choose_snapshot
from cluster.consensus.journal import Journal
from cluster.consensus.members import first_members
from cluster.consensus.recovery import Recovered, read_journal, settle
from cluster.consensus.snapfile import SnapshotFile, file_name, write_content
from cluster.consensus.snapreceive import Arrived, SnapshotReceiver
from cluster.consensus.snapshotter import Snapshotter
from cluster.consensus.snapstore import SnapshotStore
from cluster.consensus.storage import FILES, make_folders, sync_path
from cluster.consensus.wire import HigherTerm, PreVote, PreVoteReply, SnapshotChunk

MEMBERS = first_members(("a:1", "b:1", "c:1"))

FOLDER = Path("/node/journal")
guarded_or_not = pytest.mark.parametrize("guarded", [True, False])


def off(guarded: bool, *names: str) -> frozenset[str]:
    return frozenset() if guarded else frozenset(names)


def open_journal(
    storage: MemoryStorage, guards: Guards = ALL_ON, segment_bytes: int = 1 << 20
) -> tuple[Journal, NetDisk]:
    make_folders(storage, FOLDER)
    sync_path(storage, FOLDER)
    found = read_journal(storage, FOLDER, CLUSTER)
    settle(storage, FOLDER, found, guards)
    journal = Journal(found, 1, guards)
    files = SegmentFiles(storage, FOLDER, CLUSTER, found, segment_bytes, fsync=True)
    disk = NetDisk(files, journal.on_durable)
    journal.attach(disk)
    return journal, disk


def append(
    journal: Journal, disk: NetDisk, count: int, *, term: int = 1, sync: bool = True
) -> None:
    if journal.getCurrentTerm() < term:
        journal.setCurrentTerm(term, None)
    for _ in range(count):
        journal.add(os.urandom(20), journal.last_index + 1, term)
        journal.kick()
        if sync:
            disk.finish()
        else:
            disk.files.append(disk.waiting.popleft())
            disk.files.write()


# B1, B10 ----------------------------------------------------------------------------------------


class MemoryHost(RealHost):
    """Real sockets and threads, a disk that can lose its power."""

    def __init__(self, storage: MemoryStorage) -> None:
        self.storage = storage


@guarded_or_not
async def test_b1_what_was_acknowledged_survives_a_power_loss(guarded: bool) -> None:
    """100 acknowledgements of the library make no sync call at all (d01)."""
    storage = MemoryStorage()
    address = free_addresses(1)[0]
    config = ConsensusConfig(
        address, address, (), Path("/node"), disabled_guards=off(guarded, "b1_fsync")
    )

    async def start() -> tuple[Consensus, ListMachine]:
        machine = ListMachine()
        node = Consensus(config, machine, lambda *_: None, host=MemoryHost(storage))
        await node.start()
        await until(lambda: node.is_leader_ready)
        return node, machine

    node, _ = await start()
    outcomes: list[Outcome] = []
    for number in range(20):
        node.propose(b"%d" % number, lambda outcome, result: outcomes.append(outcome))
    await until(lambda: len(outcomes) == 20)
    assert set(outcomes) == {Outcome.APPLIED}
    node.abort()
    storage.power_loss(Nothing())
    if not guarded:
        with pytest.raises(ConsensusStartError, match="journal"):
            await start()
        return
    node, machine = await start()
    await node.stop()
    assert machine.entries == [b"%d" % number for number in range(20)]


@guarded_or_not
def test_b1_what_a_restart_counts_is_made_durable_first(guarded: bool) -> None:
    """The process dies between write and sync; its successor finds the entries in the cache."""
    storage = MemoryStorage()
    journal, disk = open_journal(storage)
    append(journal, disk, 3)
    append(journal, disk, 2, sync=False)
    storage.kill()
    journal, _ = open_journal(storage, Guards(off(guarded, "b1_settle")))
    assert journal.durable_index == 6  # it may acknowledge them from here on
    storage.power_loss(Nothing())
    assert (read_journal(storage, FOLDER, CLUSTER).last_index == 6) is guarded


# B2 ---------------------------------------------------------------------------------------------


def test_b2_compaction_can_be_killed_between_any_two_steps() -> None:
    """Whole files go, the oldest first: what is left is always a log without a hole."""
    step = 0
    while True:
        storage = MemoryStorage()
        journal, disk = open_journal(storage, segment_bytes=300)
        append(journal, disk, 60)
        last = journal.last_index
        cut_at = storage.operations + step

        def before(operation: str, path: Path, storage: MemoryStorage = storage) -> None:
            if storage.operations >= cut_at:  # noqa: B023 (called within this turn)
                raise PowerCut

        storage.before = before
        try:
            disk.delete_before(40)
            survived = True
        except PowerCut:
            survived = False
        storage.before = lambda operation, path: None
        storage.power_loss(Whims(Random(step)))
        found = read_journal(storage, FOLDER, CLUSTER)
        assert found.last_index == last, step
        assert found.base_index <= 40
        assert [e[1] for e in found.entries] == list(range(found.base_index + 1, last + 1))
        if survived:
            break
        step += 1
    assert step > 3


# B3 ---------------------------------------------------------------------------------------------


@guarded_or_not
def test_b3_a_snapshot_that_outran_the_log_counts_as_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, guarded: bool
) -> None:
    """Received and named, then the process died before the log was replaced.

    Unaligned, the node would vote as if it had never seen what it has applied.
    """
    logs = {letter: [1, 1, 1] for letter in "abc"}
    net = Net(monkeypatch, tmp_path, logs=logs, disabled=off(guarded, "b3_align"))
    net.crash("a")
    with (tmp_path / "a" / "snapshots" / file_name(9, 2)).open("wb") as file:
        chunks = [(1).to_bytes(4, "big"), b"x"] * 8
        write_content(file, cluster=CLUSTER, index=9, term=2, members=MEMBERS, chunks=chunks)
    a = net.restart("a")
    assert len(a.applied) == 8
    net.hold("ab")
    net.now += 1.0
    net.inject("ba", PreVote(3, 5, 1, 1))  # a log that lacks entries 6 to 9
    net.flow()
    answers = [m for m in net.waiting("ab") if isinstance(m, PreVoteReply)]
    assert answers[-1].granted is not guarded
    assert (a.journal.last_index, a.term) == ((9, 2) if guarded else (4, 1))


# B5 ---------------------------------------------------------------------------------------------


@guarded_or_not
@pytest.mark.parametrize("damage", ["flipped", "empty", "missing"])
def test_b5_a_node_without_its_snapshot_does_not_start(
    tmp_path: Path, damage: str, guarded: bool
) -> None:
    """The library logs it, votes, becomes leader, and never applies anything (d06)."""
    path = tmp_path / file_name(7, 1)
    if damage != "missing":
        with path.open("wb") as file:
            write_content(
                file, cluster=CLUSTER, index=7, term=1, members=MEMBERS, chunks=[b"state"]
            )
    if damage == "flipped":
        data = bytearray(path.read_bytes())
        data[60] ^= 1
        path.write_bytes(data)
    elif damage == "empty":
        path.write_bytes(b"")
    found = Recovered(base_index=7, base_term=1, term=1)
    store = SnapshotStore(FILES, tmp_path, CLUSTER)
    guards = Guards(off(guarded, "b5_refuse_damage"))
    if guarded:
        with pytest.raises(ConsensusStartError, match=r"damaged|no snapshot"):
            choose_snapshot(store, found, guards)
    else:
        assert choose_snapshot(store, found, guards) is None


# B7 ---------------------------------------------------------------------------------------------


@guarded_or_not
def test_b7_a_damaged_entry_is_never_read(guarded: bool) -> None:
    storage = MemoryStorage()
    journal, disk = open_journal(storage)
    journal.setCurrentTerm(1, None)
    for index in range(2, 6):
        journal.add(b"payload %d" % index, index, 1)
        journal.kick()
        disk.finish()
    path = next(path for path in storage.files() if b"payload 3" in storage.read(path))
    storage.flip_bit(path, storage.read(path).index(b"payload 3"), 5)
    guards = Guards(off(guarded, "b7_checksums"))
    if guarded:
        with pytest.raises(ConsensusStartError, match="corrupt"):
            read_journal(storage, FOLDER, CLUSTER, guards)
    else:
        assert read_journal(storage, FOLDER, CLUSTER, guards).entries[1][0] == b"Payload 3"


def test_b7_records_of_an_earlier_life_of_a_file_are_not_resurrected() -> None:
    """Each segment has its own nonce, and batches are numbered without a gap."""
    storage = MemoryStorage()
    journal, disk = open_journal(storage)
    append(journal, disk, 5)
    old = storage.read(storage.files()[-1])
    storage = MemoryStorage()
    journal, disk = open_journal(storage)
    append(journal, disk, 2)
    path = storage.files()[-1]
    new = storage.read(path)
    storage.overwrite(path, new + old[len(new) :])
    assert read_journal(storage, FOLDER, CLUSTER).last_index == 3


# B8 ---------------------------------------------------------------------------------------------


@guarded_or_not
def test_b8_a_full_disk_is_noticed_before_anything_is_promised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, guarded: bool
) -> None:
    """The library dies of SIGBUS; waiting in silence would be no better for a client."""
    world = World(monkeypatch, tmp_path, disabled=off(guarded, "b8_full_disk"))
    world.win_election("b:1")
    world.disk.is_full = world.disk.held = True
    world.run()
    outcomes: list[Outcome] = []
    world.core.propose(b"x", lambda outcome, result: outcomes.append(outcome))
    world.run()
    assert outcomes == ([Outcome.REFUSED] if guarded else [])
    world.receive("b:1", HigherTerm(5))  # somebody else leads
    world.append("b:1", 5, (2, 1), command("y", 3, 5))
    assert (world.journal.term_at(3) == 5) is not guarded
    world.network.sent.clear()
    world.pass_time(2.0)
    asked = any(isinstance(m, PreVote) for _, m, _ in world.network.sent)
    assert asked is not guarded


# B11 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, ValueError])
def test_b11_a_forked_child_never_returns_into_the_node(error: type[BaseException]) -> None:
    """In the library a KeyboardInterrupt makes it a second copy of the node on the same sockets."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:

            def work() -> None:
                raise error("stop")

            run_child(work, writer)
        finally:
            os._exit(99)  # it came back
    os.close(writer)
    _, status = os.waitpid(child, 0)
    said = os.read(reader, 100)
    os.close(reader)
    assert os.waitstatus_to_exitcode(status) == 1
    assert error.__name__.encode() in said


# B12 --------------------------------------------------------------------------------------------


def test_b12_no_entry_is_large_enough_to_be_split_by_the_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing of its own sender is left, and its bound is above ours in any case."""
    world = World(monkeypatch, tmp_path)
    settings = engine_settings(world.core.config, world.journal, ALL_ON)
    assert settings.appendEntriesBatchSizeBytes == SEND_BYTES > world.core.config.entry_bytes_max
    world.win_election("b:1")
    outcomes: list[Outcome] = []
    too_large = b"x" * (world.core.config.entry_bytes_max + 1)
    world.core.propose(too_large, lambda outcome, result: outcomes.append(outcome))
    world.run()
    assert outcomes == [Outcome.REFUSED]


# B13, A5 ----------------------------------------------------------------------------------------


class Reception:
    """A receiver and what came of it."""

    def __init__(self, folder: Path, guards: Guards) -> None:
        folder.mkdir()
        self.store = SnapshotStore(FILES, folder, CLUSTER)
        self.arrived: list[Arrived] = []
        self.receiver = SnapshotReceiver(
            self.store,
            lambda job, done: done(job()),
            lambda peer, arrived: self.arrived.append(arrived),
            guards,
        )

    def take(self, data: bytes, offset: int, size: int) -> int:
        chunk = SnapshotChunk(1, 1, 7, 1, len(data), offset)
        return self.receiver.on_chunk("a", chunk, data[offset : offset + size])


def snapshot_bytes(path: Path) -> bytes:
    with path.open("wb") as file:
        write_content(
            file,
            cluster=CLUSTER,
            index=7,
            term=1,
            members=MEMBERS,
            chunks=[b"first", b"second" * 50],
        )
    return path.read_bytes()


@guarded_or_not
def test_b13_a_lost_chunk_leaves_no_hole(tmp_path: Path, guarded: bool) -> None:
    """A flap of the connection between two ticks lost a chunk, and the transfer went on."""
    data = snapshot_bytes(tmp_path / "made")
    reception = Reception(tmp_path / "in", Guards(off(guarded, "b13_chunk_place")))
    assert reception.take(data, 0, 100) == 100
    have = reception.take(data, 200, 100)  # 100 to 200 never came
    assert have == (100 if guarded else 200)
    for offset in range(100, len(data), 100):
        reception.take(data, offset, 100)
    if guarded:
        assert reception.arrived[-1].snapshot is not None
    else:
        assert not any(arrived.snapshot for arrived in reception.arrived)


@guarded_or_not
def test_a5_a_damaged_snapshot_never_gets_a_name(tmp_path: Path, guarded: bool) -> None:
    """The library renames it over the good one first, and looks at it afterwards (B5)."""
    data = bytearray(snapshot_bytes(tmp_path / "made"))
    data[80] ^= 4
    reception = Reception(tmp_path / "in", Guards(off(guarded, "a5_verify_first")))
    reception.take(bytes(data), 0, len(data))
    assert (reception.store.all() == []) is guarded
    assert (reception.arrived[-1].snapshot is None) is guarded


@guarded_or_not
def test_a5_what_was_not_verified_ends_the_follower(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, guarded: bool
) -> None:
    disabled = off(guarded, "a5_verify_first")
    world = World(monkeypatch, tmp_path, entries=[command("x", 2, 1)], term=1, disabled=disabled)
    world.connect("b:1")
    data = bytearray(snapshot_bytes(tmp_path / "made"))
    data[80] ^= 4
    world.receive("b:1", SnapshotChunk(1, 1, 7, 1, len(data), 0), bytes(data))
    assert (world.fatal == []) is guarded
    assert world.log == [(2, 1)]


# C5 ---------------------------------------------------------------------------------------------


@guarded_or_not
async def test_c5_a_follower_that_lags_a_little_needs_no_snapshot(
    tmp_path: Path, guarded: bool
) -> None:
    """The library keeps one entry: whoever is behind by two at a compaction gets everything."""
    disabled = off(guarded, "c5_trailing_log")
    async with running(tmp_path, 3, trailing_entries=100, disabled_guards=disabled) as cluster:
        leader = await cluster.leader()
        position = cluster.nodes.index(cluster.followers(leader)[0])
        await cluster.nodes[position].consensus.stop()
        await cluster.commit(*[b"%d" % number for number in range(20)])
        await leader.consensus.snapshot_now()
        node = await cluster.restart(position)
        await cluster.all_equal()
        assert node.consensus.status()["snapshots_installed"] == (0 if guarded else 1)


@guarded_or_not
def test_c5_a_transfer_outlives_the_next_snapshot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, guarded: bool
) -> None:
    """Else a slow follower begins anew with each, and never catches up."""
    entries = [command("x", index, 1) for index in range(2, 30)]
    disabled = off(guarded, "c5_keep_transfer")
    world = World(
        monkeypatch, tmp_path, entries=entries, term=1, disabled=disabled, trailing_entries=0
    )
    core = world.core
    world.win_election("c:1")
    world.acknowledge("c:1", world.journal.last_index)

    def publish(index: int) -> SnapshotFile:
        with (tmp_path / "t").open("wb") as file:
            write_content(
                file, cluster=CLUSTER, index=index, term=1, members=MEMBERS, chunks=[b"state"]
            )
        return store.publish(tmp_path / "t", index, 1)

    store = SnapshotStore(FILES, tmp_path, CLUSTER)
    snapshotter = Snapshotter(core, world.machine, store, world.disk, RealHost())
    snapshotter.remember(publish(10))
    snapshotter._compact()
    world.engine.set_next_index("b:1", 2)
    world.pass_time(0.06)
    assert core.replicator.lowest_sender_index() == 10
    snapshotter.remember(publish(25))
    snapshotter._compact()
    assert core.replicator.lowest_sender_index() == (10 if guarded else None)
    assert world.journal.first_index == (10 if guarded else 25)  # what the follower needs next
