"""Installs a snapshot from the leader, and aligns log and snapshots when a node starts.

A snapshot at or below the commit index is answered, never installed (A5); a log that already holds
the snapshot's last entry keeps what follows it (Raft 7); any other log is replaced as a whole. The
machine's `before_truncate` is not asked here: entries that were skipped never passed through it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from .acceptor import Acceptor
from .guards import ALL_ON, Guards
from .interface import ConsensusStartError, FatalError, LoadsAside, ReplicatedMachine
from .journal import Journal
from .pin import now
from .recovery import FIX, Recovered
from .roster import Roster
from .segments import DiskFullError
from .snapfile import SnapshotFile, SnapshotFileError
from .snapreceive import Arrived, SnapshotReceiver
from .snapstore import SnapshotStore
from .wire import AppendReply, SnapshotChunk, SnapshotReply

NO_ROOM_S = 5.0  # then the leader may try again

logger = logging.getLogger("quorate.consensus.install")


class Installer:
    def __init__(
        self,
        acceptor: Acceptor,
        machine: ReplicatedMachine,
        receiver: SnapshotReceiver,
        store: SnapshotStore,
        roster: Roster,
    ) -> None:
        self._roster = roster
        self._acceptor = acceptor
        self._machine = machine
        self._receiver = receiver
        self._store = store
        self.run_aside: Callable[[Callable[[], None]], None] = lambda job: job()
        if isinstance(machine, LoadsAside):
            loads = machine
            receiver.load = lambda snapshot: loads.load(store.read(snapshot))
        self._no_room_until = 0.0
        self._last: tuple[int, int] = (0, 0)  # term and seq of the latest chunk
        self.on_installed: Callable[[SnapshotFile], None] = lambda snapshot: None

    def on_chunk(self, peer: str, chunk: SnapshotChunk, data: bytes) -> None:
        """Every chunk is answered, so the leader knows that this node is alive (C4)."""
        acceptor = self._acceptor
        self._last = (chunk.term, chunk.seq)
        if self._is_too_old(chunk.index):
            self._receiver.abandon()
            self._acknowledge(peer, acceptor.engine.commit_index())
            return
        if acceptor.space.is_out or now() < self._no_room_until:
            self._receiver.abandon()
            acceptor.space.tell(peer)
            return
        try:
            have = self._receiver.on_chunk(peer, chunk, data)
        except DiskFullError as error:
            self._no_room_until = now() + NO_ROOM_S
            acceptor.counters.errors["no_room_for_snapshot"] += 1
            logger.error("no room for snapshot %d: %s", chunk.index, error)
            self._receiver.abandon()
            acceptor.space.tell(peer)
            return
        acceptor.outbox.send(peer, SnapshotReply(chunk.term, chunk.seq, chunk.index, have))

    def on_arrived(self, peer: str, arrived: Arrived) -> None:
        """Called on the loop once the file was verified and durably named."""
        acceptor = self._acceptor
        engine, journal = acceptor.engine, acceptor.journal
        snapshot = arrived.snapshot
        if snapshot is None:
            acceptor.counters.errors["bad_snapshot"] += 1
            logger.error("%s; asking for it again", arrived.why)
            return
        if self._is_too_old(snapshot.index):
            return
        members = self._store.members(snapshot)
        if arrived.adopt is not None:
            self.run_aside(arrived.adopt())
        else:
            restore(self._machine, self._store, snapshot)
        keeps_log = journal.term_at(snapshot.index) == snapshot.term
        keeps_log = keeps_log and acceptor.guards.on("a5_keep_suffix")
        if not keeps_log:
            journal.reset(snapshot.index, snapshot.term)
        engine.set_applied_index(snapshot.index)
        engine.set_commit_index(max(engine.commit_index(), snapshot.index))
        self._roster.restored(snapshot.index, members, keep_later=keeps_log)
        self.on_installed(snapshot)
        acceptor.counters.snapshots_installed += 1
        logger.info("installed snapshot %d from %s", snapshot.index, peer)
        self._acknowledge(peer, snapshot.index)

    def _acknowledge(self, peer: str, index: int) -> None:
        """A5: only the snapshot's own index, or what is committed here anyway."""
        term, seq = self._last
        if not self._acceptor.guards.on("a5_ack_index"):
            index = self._acceptor.journal.last_index  # what the library claims
        if term == self._acceptor.engine.term():
            self._acceptor.outbox.say(peer, AppendReply(term, seq, index + 1, False, True))

    def _is_too_old(self, index: int) -> bool:
        acceptor = self._acceptor
        return acceptor.guards.on("a5_snapshot_age") and index <= acceptor.engine.commit_index()


def restore(machine: ReplicatedMachine, store: SnapshotStore, snapshot: SnapshotFile) -> None:
    """FatalError when the machine does not understand an intact file."""
    try:
        machine.restore(store.read(snapshot))
    except ValueError as error:
        raise FatalError(f"snapshot {snapshot.path} cannot be restored: {error}") from error


def choose_snapshot(
    store: SnapshotStore, found: Recovered, guards: Guards = ALL_ON
) -> SnapshotFile | None:
    """The newest intact snapshot that the journal continues; ConsensusStartError if there is none.

    A damaged newest one may be passed over only while the journal still reaches back to the older.
    """
    complaints: list[str] = []
    for snapshot in store.all():
        try:
            store.validate(snapshot)
        except (SnapshotFileError, OSError) as error:
            complaints.append(f"snapshot {snapshot.path} is damaged: {error}")
            continue
        if complaints and found.base_index > snapshot.index:
            break
        for complaint in complaints:
            logger.error("%s; starting from %s", complaint, snapshot.path)
        _check_reach(store, found, snapshot.index)
        return snapshot
    if not guards.on("b5_refuse_damage"):
        return None  # what the library does: start with nothing, and vote
    if complaints:
        raise ConsensusStartError(f"{complaints[0]}; {FIX}")
    _check_reach(store, found, 1)
    return None


def align(journal: Journal, snapshot: SnapshotFile | None) -> None:
    """B3: after a crash between snapshot and log, the snapshot wins and the log follows it."""
    if snapshot is None:
        return
    if journal.getCurrentTerm() < snapshot.term:
        # A received file can be durable before the term it came in is: without the term the next
        # start would find a log that ends beyond it. No vote of that term was ever sent.
        journal.setCurrentTerm(snapshot.term, None)
    if journal.term_at(snapshot.index) != snapshot.term:
        journal.reset(snapshot.index, snapshot.term)


def _check_reach(store: SnapshotStore, found: Recovered, index: int) -> None:
    if found.base_index > index:
        raise ConsensusStartError(
            f"the journal begins after entry {found.base_index}, but {store.folder} has no "
            f"snapshot that reaches so far; {FIX}"
        )
