"""Several real cores on one clock, joined by links that carry only what the test lets through.

For schedules that need more than one real node. Every message waits in its link until `flow()`; a
link can be held (a stalled connection: late, but in order), reset (what was in flight is lost) or
cut. Disks are real journals, so a crashed node comes back with what it had on disk.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from consensus_helpers import ListMachine

from cluster.consensus import ConsensusConfig, Outcome, Role
from cluster.consensus.core import Core
from cluster.consensus.counters import Counters
from cluster.consensus.disk import Batch, SegmentFiles
from cluster.consensus.guards import Guards
from cluster.consensus.install import Installer, align, choose_snapshot, restore
from cluster.consensus.journal import Journal
from cluster.consensus.mesh import Connected, Disconnected, Event, Received
from cluster.consensus.recovery import Recovered, read_journal, settle
from cluster.consensus.snapfile import file_name, write_content
from cluster.consensus.snapreceive import SnapshotReceiver
from cluster.consensus.snapstore import SnapshotStore
from cluster.consensus.storage import FILES
from cluster.consensus.wire import EMPTY, Append, Blob, Message

CLUSTER = b"c" * 16
STEP_S = 0.01


class NetDisk:
    """A journal folder; batches reach it at once unless `held`, and are then lost in a crash."""

    def __init__(self, files: SegmentFiles, finished: Callable[[Batch], None]) -> None:
        self.files = files
        self.held = False
        self.is_full = False
        self.waiting: deque[Batch] = deque()
        self._finished = finished

    def write(self, batch: Batch) -> None:
        self.waiting.append(batch)

    def finish(self) -> bool:
        """True when something became durable."""
        if self.held or not self.waiting:
            return False
        while self.waiting and not self.held:
            batch = self.waiting.popleft()
            self.files.append(batch)
            self.files.sync()
            self._finished(batch)
        return True

    def delete_before(self, index: int) -> None:
        self.files.delete_before(index)

    def size_bytes(self) -> int:
        return self.files.size_bytes()

    def close(self) -> None:
        self.files.close()


class NetNode:
    """One core; made anew by every restart, over the same folder."""

    def __init__(self, net: Net, config: ConsensusConfig) -> None:
        self.net = net
        self.config = config
        self.id = config.node_id
        self.inbox: deque[Event] = deque()
        self.fatal: list[str] = []
        self.outcomes: dict[bytes, Outcome] = {}
        self.machine = ListMachine()
        journal_folder, self.snapshots = config.data_dir / "journal", config.data_dir / "snapshots"
        for folder in (journal_folder, self.snapshots):
            folder.mkdir(parents=True, exist_ok=True)
        store = SnapshotStore(FILES, self.snapshots, CLUSTER)
        found = read_journal(FILES, journal_folder, CLUSTER)
        guards = Guards(config.disabled_guards)
        snapshot = choose_snapshot(store, found, guards)
        settle(FILES, journal_folder, found, guards)
        if snapshot is not None:
            restore(self.machine, store, snapshot)
        applied = snapshot.index if snapshot is not None else 1
        self.journal = Journal(found, applied, guards)
        files = open_files(journal_folder, found)
        self.disk = NetDisk(files, self._on_durable)
        self.journal.attach(self.disk)
        if guards.on("b3_align"):
            align(self.journal, snapshot)
        self.core = Core(
            config=replace(config, on_fatal=self.fatal.append),
            machine=self.machine,
            journal=self.journal,
            network=self,
            counters=Counters(),
            wake=lambda: None,
            on_role=lambda role, term, leader: None,
            applied=applied,
            members=store.members(snapshot) if snapshot is not None else None,
        )
        receiver = SnapshotReceiver(
            store, lambda job, done: done(job()), self.core.snapshot_arrived, guards
        )
        installer = Installer(self.core.acceptor, self.machine, receiver, store, self.core.roster)
        self.core.enable_snapshots(store, installer)
        for peer in config.peers:
            if self.epoch(peer):
                self.inbox.append(Connected(peer, self.epoch(peer)))

    def _on_durable(self, batch: Batch) -> None:
        self.core.on_durable(batch)

    # What the core asks of a network ---------------------------------------------------------

    def send(self, peer: str, message: Message, blob: Blob = EMPTY) -> bool:
        epoch = self.epoch(peer)
        if epoch:
            self.net.links[self.id, peer].append((epoch, message, b"".join(blob.parts)))
        return epoch > 0

    def epoch(self, peer: str) -> int:
        return self.net.epoch(self.id, peer)

    def writable(self, peer: str) -> bool:
        return True

    def is_receiving(self, peer: str) -> bool:
        return False

    def folder(self, peer: str) -> str:
        return ""

    def set_peers(self, peers: tuple[str, ...]) -> None: ...

    # What tests look at and do ---------------------------------------------------------------

    @property
    def role(self) -> Role:
        return self.core.engine.role()

    @property
    def term(self) -> int:
        return self.core.engine.term()

    @property
    def commit(self) -> int:
        return self.core.engine.commit_index()

    @property
    def applied(self) -> list[bytes]:
        return self.machine.entries

    @property
    def log(self) -> list[tuple[int, int]]:
        """(index, term) of everything in memory."""
        return [entry[1:] for entry in self.journal[1:]]

    @property
    def terms(self) -> list[int]:
        return [term for _, term in self.log]

    def propose(self, *entries: bytes) -> None:
        for entry in entries:

            def done(outcome: Outcome, result: object, entry: bytes = entry) -> None:
                assert entry not in self.outcomes, "a callback was called twice"
                self.outcomes[entry] = outcome

            self.core.propose(entry, done)
            self.core.run()  # an entry of its own message

    def campaign(self) -> None:
        """Its election timeout is over, and nobody it could ask heard a leader lately."""
        self.core.engine.set_deadline(0.0)
        self.core.run()

    def compact(self) -> int:
        """Writes a snapshot of what is applied and forgets the log before it."""
        index = self.core.engine.applied_index()
        term = self.journal.term_at(index)
        assert term is not None
        with (self.snapshots / file_name(index, term)).open("wb") as file:
            chunks = self.machine.snapshot()
            write_content(
                file,
                cluster=CLUSTER,
                index=index,
                term=term,
                members=self.core.roster.at(index),
                chunks=chunks,
            )
        self.journal.trim(index)
        return index


class Net:
    """Nodes "a:1", "b:1", ...; one call of `flow()` delivers until nothing is left."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        folder: Path,
        count: int = 3,
        *,
        disabled: Iterable[str] = (),
        logs: dict[str, list[int]] | None = None,
        terms: dict[str, int] | None = None,
        **settings: Any,
    ) -> None:
        self.now = 100.0
        monkeypatch.setattr("pysyncobj.syncobj.monotonicTime", lambda: self.now)
        monkeypatch.setattr("pysyncobj.syncobj.random", random.Random(count))
        self.links: dict[tuple[str, str], deque[tuple[int, Message, bytes]]] = defaultdict(deque)
        self.held: set[tuple[str, str]] = set()
        self._epochs: dict[frozenset[str], int] = {}
        self._down: set[str] = set()
        self._newest = 0
        ids = [f"{letter}:1" for letter in "abcdefghi"[:count]]
        self.configs = {
            node_id: ConsensusConfig(
                node_id,
                node_id,
                tuple(other for other in ids if other != node_id),
                folder / node_id[0],
                disabled_guards=frozenset(disabled),
                **settings,
            )
            for node_id in ids
        }
        for letter in sorted({*(logs or {}), *(terms or {})}):
            log, term = (logs or {}).get(letter, []), (terms or {}).get(letter, 0)
            write_log(self.configs[f"{letter}:1"], log, term)
        self.nodes: dict[str, NetNode] = {}
        for node_id in ids:
            self.nodes[node_id] = NetNode(self, self.configs[node_id])
        for position, one in enumerate(ids):
            for other in ids[position + 1 :]:
                self.connect(one, other)
        self.run()

    def __getitem__(self, letter: str) -> NetNode:
        return self.nodes[f"{letter}:1"]

    # Links -----------------------------------------------------------------------------------

    def epoch(self, one: str, other: str) -> int:
        return self._epochs.get(frozenset((one, other)), 0)

    def connect(self, one: str, other: str) -> None:
        self._newest += 1
        self._epochs[frozenset((one, other))] = self._newest
        for here, there in ((one, other), (other, one)):
            if here in self.nodes:
                self.nodes[here].inbox.append(Connected(there, self._newest))

    def disconnect(self, one: str, other: str) -> None:
        """Both ends are told; what was in flight is lost."""
        epoch = self._epochs.pop(frozenset((one, other)), 0)
        for here, there in ((one, other), (other, one)):
            self.links[here, there].clear()
            if epoch and here in self.nodes:
                self.nodes[here].inbox.append(Disconnected(there, epoch))

    def hold(self, *letters: str) -> None:
        """hold("ab"): what a sends to b waits, as in a stalled connection."""
        self.held |= {(f"{pair[0]}:1", f"{pair[1]}:1") for pair in letters}

    def release(self, *letters: str) -> None:
        self.held -= {(f"{pair[0]}:1", f"{pair[1]}:1") for pair in letters}

    def isolate(self, letter: str) -> None:
        """Both directions of all links of a node stall; nobody is told."""
        for other in self.nodes:
            if other != f"{letter}:1":
                self.hold(letter + other[0], other[0] + letter)

    def heal(self) -> None:
        self.held.clear()

    def waiting(self, pair: str) -> list[Message]:
        return [message for _, message, _ in self.links[f"{pair[0]}:1", f"{pair[1]}:1"]]

    def inject(self, pair: str, message: Message) -> None:
        """A message of the test's own, on the current connection."""
        source, target = f"{pair[0]}:1", f"{pair[1]}:1"
        self.links[source, target].append((self.epoch(source, target), message, b""))

    def deliver(self, pair: str, count: int = 1) -> None:
        """The next messages of one link, held or not, in order; the receiver runs after each."""
        source, target = f"{pair[0]}:1", f"{pair[1]}:1"
        for _ in range(count):
            epoch, message, blob = self.links[source, target].popleft()
            if target in self.nodes:
                self.nodes[target].inbox.append(Received(source, epoch, message, blob))
                self.nodes[target].core.run()

    # Nodes -----------------------------------------------------------------------------------

    def run(self) -> bool:
        """One turn of every node and disk; True when a disk finished something."""
        moved = False
        for node in list(self.nodes.values()):
            node.core.run()
            moved |= node.disk.finish()
        return moved

    def flow(self) -> None:
        """Delivers what is not held until everything is quiet; time stands still."""
        busy = True
        while busy:
            busy = self.run()
            for (source, target), queue in list(self.links.items()):
                while queue and (source, target) not in self.held:
                    busy = True
                    self.deliver(source[0] + target[0])

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.now += STEP_S
            self.flow()

    def crash(self, letter: str) -> None:
        """What was not on disk is lost, and so is what was in flight."""
        node_id = f"{letter}:1"
        node = self.nodes.pop(node_id)
        node.core.halted = True
        node.disk.close()
        for other in self.configs:
            if other != node_id:
                self.disconnect(node_id, other)

    def restart(self, letter: str) -> NetNode:
        node_id = f"{letter}:1"
        self.nodes[node_id] = NetNode(self, self.configs[node_id])
        for other in self.nodes:
            if other != node_id:
                self.connect(node_id, other)
        self.run()
        return self.nodes[node_id]

    def elect(self, letter: str) -> NetNode:
        """Lets a node win an election with whatever the links allow."""
        node = self[letter]
        self.now += 1.0  # nobody is sticky; the engines look at their deadlines in their next run
        for other in self.nodes.values():
            other.core.engine.rearm()
        for _ in range(3):  # the first round may teach it a higher term
            if node.role is not Role.LEADER:
                node.campaign()
                self.flow()
        assert node.role is Role.LEADER, f"{letter} was not elected"
        return node

    # Judgement -------------------------------------------------------------------------------

    def disagreement(self) -> str:
        """Two nodes that applied different entries at one place, or ""."""
        for one in self.nodes.values():
            for other in self.nodes.values():
                for mine, theirs in zip(one.applied, other.applied, strict=False):
                    if mine != theirs:
                        return f"{one.id} applied {mine!r} where {other.id} applied {theirs!r}"
        return ""

    def holders(self, index: int, term: int) -> set[str]:
        """Who has an entry on disk."""
        return {
            node.id[0]
            for node in self.nodes.values()
            if (index, term) in node.log and node.journal.durable_index >= index
        }


def open_files(folder: Path, found: Recovered) -> SegmentFiles:
    return SegmentFiles(FILES, folder, CLUSTER, found, 1 << 20, fsync=False)


def write_log(config: ConsensusConfig, terms: list[int], term: int) -> None:
    """A journal folder whose entries (from index 2 on) have these terms."""
    folder = config.data_dir / "journal"
    folder.mkdir(parents=True)
    journal = Journal(Recovered(), 1)
    files = open_files(folder, Recovered())
    disk = NetDisk(files, lambda batch: None)
    journal.attach(disk)
    journal.setCurrentTerm(max([term, *terms]), None)
    for index, at in enumerate(terms, start=2):
        journal.add(b"\x00%d:%d" % (index, at), index, at)
    journal.kick()
    disk.finish()
    disk.close()


def appends_in(messages: Iterable[Message]) -> list[Append]:
    return [m for m in messages if isinstance(m, Append)]
