"""One node's journal, snapshots and folder on a simulated disk, and what it has promised so far.

Runs the product's own steps in the product's order, without network, threads or time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from consensus_helpers import ListMachine

from chaos.sim.disk import Fate, MemoryStorage, PowerCut
from cluster.consensus.folder import DataFolder
from cluster.consensus.guards import Guards
from cluster.consensus.identity import new_identity
from cluster.consensus.install import align, choose_snapshot, restore
from cluster.consensus.journal import Journal
from cluster.consensus.members import first_members
from cluster.consensus.recovery import read_journal, settle
from cluster.consensus.segments import Batch, SegmentFiles
from cluster.consensus.snapfile import SnapshotFile, write_content
from cluster.consensus.snapreceive import Arrived, SnapshotReceiver
from cluster.consensus.snapstore import SnapshotStore
from cluster.consensus.storage import BufferedWriter
from cluster.consensus.wire import SnapshotChunk

CLUSTER = b"c" * 16
ROOT = Path("/node/data")
SEGMENT_BYTES = 600
Log = dict[int, tuple[bytes, int]]


@dataclass(frozen=True)
class Promise:
    """A state that the node may be found in: its log by index, and its term and vote."""

    log: Log
    term: int
    vote: str | None


MEMBERS = first_members(("a:1", "b:1", "c:1"))


@dataclass
class Rig:
    """`promised` is what was reported durable, `possible` what may be found instead of it."""

    storage: MemoryStorage
    promised: Promise = field(default_factory=lambda: Promise({}, 0, None))
    possible: list[Promise] = field(default_factory=list)
    log: Log = field(default_factory=dict)  # everything ever appended and not cut, compacted too
    machine: ListMachine = field(default_factory=ListMachine)
    snapshot: SnapshotFile | None = None

    def start(self) -> None:
        storage = self.storage
        folder = self.folder = DataFolder(storage, ROOT, "a:1")
        identity = folder.open() or new_identity(CLUSTER, "a:1", MEMBERS.ids)
        store = self.store = SnapshotStore(storage, folder.snapshots, CLUSTER)
        found = read_journal(storage, folder.journal, CLUSTER)
        snapshot = choose_snapshot(store, found)
        folder.check_content(found, snapshot)
        folder.prepare()
        store.remove_unfinished()
        settle(storage, folder.journal, found)
        if snapshot is not None:
            restore(self.machine, store, snapshot)
        applied = snapshot.index if snapshot is not None else 1
        journal = self.journal = Journal(found, applied, Guards())
        self.files = SegmentFiles(
            storage, folder.journal, CLUSTER, found, SEGMENT_BYTES, fsync=True
        )
        folder.sign(identity, self.files, journal.opening())
        self.batches: list[Batch] = []
        journal.attach(self)
        align(journal, snapshot)
        self.snapshot = snapshot

    # The journal's disk ----------------------------------------------------------------------

    is_full = False

    def write(self, batch: Batch) -> None:
        self.batches.append(batch)

    def delete_before(self, index: int) -> None:
        self.files.delete_before(index)

    def size_bytes(self) -> int:
        return self.files.size_bytes()

    def close(self) -> None: ...

    # Moves -----------------------------------------------------------------------------------

    def append(self, count: int, *, size: int = 30) -> None:
        for _ in range(count):
            index, term = self.journal.last_index + 1, self.journal.getCurrentTerm()
            data = b"\x00" + b"%d/%d " % (index, term) * (size // 4)
            self.journal.add(data, index, term)
            self.log[index] = (data, term)
        self.journal.kick()

    def vote(self, term: int, whom: str | None) -> None:
        self.journal.setCurrentTerm(term, whom)
        self.journal.kick()

    def cut_from(self, index: int) -> None:
        self.journal.deleteEntriesFrom(index - self.journal.first_index)
        self.log = {at: entry for at, entry in self.log.items() if at < index}
        self.journal.kick()

    def flush(self) -> None:
        """Everything written so far, in one group, becomes durable and is promised."""
        self.possible.append(self.state())
        batches, self.batches = self.batches, []
        for batch in batches:
            self.files.append(batch)
        self.files.sync()
        for batch in batches:
            self.journal.on_durable(batch)
        self.promised = self.state()
        self.possible = [self.promised]
        self.files.note_durable()

    def take_snapshot(self, index: int) -> None:
        term = self.journal.term_at(index)
        assert term is not None
        self.snapshot = self._write_snapshot(self.store, index, term)
        self.journal.trim(index)
        self.files.delete_before(min(kept.index for kept in self.store.all()))

    def receive_snapshot(self, index: int, term: int) -> None:
        """From a leader, in chunks; then installed."""
        other = SnapshotStore(MemoryStorage(), Path("/snaps"), CLUSTER)
        other.storage.make_folder(other.folder)
        source = self._write_snapshot(other, index, term)
        data = other.storage.read(source.path)
        arrived: list[Arrived] = []
        receiver = SnapshotReceiver(
            self.store, lambda job, done: done(job()), lambda peer, found: arrived.append(found)
        )
        # Once it has its name, a restart begins with it.
        self.possible.append(Promise({index: (b"", term)}, max(term, self.promised.term), None))
        for offset in range(0, len(data), 100):
            chunk = SnapshotChunk(term, 1, index, term, len(data), offset)
            receiver.on_chunk("b:1", chunk, data[offset : offset + 100])
        assert arrived[0].snapshot is not None, arrived[0].why
        self.snapshot = arrived[0].snapshot
        if self.journal.term_at(index) != term:
            self.journal.reset(index, term)
            self.log = {index: (b"", term)}
        self.journal.kick()

    def _write_snapshot(self, store: SnapshotStore, index: int, term: int) -> SnapshotFile:
        temporary = store.folder / "taking.tmp"
        with contextlib.closing(BufferedWriter(store.storage, temporary)) as file:
            chunks = [(4).to_bytes(4, "big") + b"%4d" % number for number in range(60)]
            write_content(
                file, cluster=CLUSTER, index=index, term=term, members=MEMBERS, chunks=chunks
            )
            file.finish()
        store.validate_as(temporary, index, term)
        return store.publish(temporary, index, term)

    # Verdicts --------------------------------------------------------------------------------

    def state(self) -> Promise:
        journal = self.journal
        return Promise(dict(self.log), journal.getCurrentTerm(), journal.getVotedForNodeId())

    def recovered_from(self, before: Rig) -> None:
        """Asserts that this rig, just started, holds what the one before had promised."""
        journal = self.journal
        base = self.snapshot.index if self.snapshot is not None else 1
        log = {index: (data, term) for data, index, term in journal[1:] if index > base}
        last = max([*log, base])
        candidates = [before.promised, *before.possible]
        fits = [
            state
            for state in candidates
            if max(state.log, default=1) == last
            and log == {at: entry for at, entry in state.log.items() if at > base}
        ]
        assert fits, f"log {base}..{last} is none of {[sorted(c.log)[-1:] for c in candidates]}"
        hard = (journal.getCurrentTerm(), journal.getVotedForNodeId())
        assert hard in {(state.term, state.vote) for state in candidates}
        assert hard[0] >= before.promised.term, "the term went back"
        if hard[0] == before.promised.term and before.promised.vote is not None:
            assert hard[1] == before.promised.vote, "the vote was forgotten"
        self.log = dict(fits[0].log)
        self.promised = self.state()
        self.possible = [self.promised]


def run_until_cut(
    script: Callable[[Rig], None], cut_at: int, earlier: Callable[[Rig], None] | None = None
) -> tuple[Rig, bool]:
    """Plays `earlier` undisturbed and the script up to a storage operation; True if it was cut."""
    storage = MemoryStorage()
    storage.make_folder(ROOT.parent)
    storage.sync_folder(Path("/"))
    rig = Rig(storage)
    if earlier is not None:
        rig.start()
        earlier(rig)
    start = storage.operations

    def before(operation: str, path: Path) -> None:
        if storage.operations >= start + cut_at:
            raise PowerCut

    storage.before = before
    try:
        script(rig)
    except PowerCut:
        return rig, True
    return rig, False


def revive(rig: Rig, fate: Fate | None) -> Rig:
    """What a node finds that starts after the power loss, or after a kill without one."""
    rig.storage.before = lambda operation, path: None
    if fate is None:
        rig.storage.revive()
        rig.storage.kill()
    else:
        rig.storage.power_loss(fate)
    after = Rig(rig.storage)
    after.start()
    after.recovered_from(rig)
    return after
