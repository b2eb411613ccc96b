"""One real core with a network and a disk that do only what the test says."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest
from consensus_helpers import ListMachine

from cluster.consensus import ConsensusConfig, Role
from cluster.consensus.core import Core
from cluster.consensus.counters import Counters
from cluster.consensus.disk import Batch
from cluster.consensus.engine import Engine
from cluster.consensus.guards import Guards
from cluster.consensus.install import Installer
from cluster.consensus.journal import Journal
from cluster.consensus.mesh import Connected, Disconnected, Event, Received
from cluster.consensus.recovery import Recovered
from cluster.consensus.snapreceive import SnapshotReceiver
from cluster.consensus.snapstore import SnapshotStore
from cluster.consensus.storage import FILES
from cluster.consensus.wire import (
    EMPTY,
    Append,
    AppendReply,
    Blob,
    Message,
    PreVote,
    PreVoteReply,
    VoteReply,
    encode_entries,
)

CLUSTER = b"c" * 16
Entry = tuple[bytes, int, int]


class ScriptedNetwork:
    def __init__(self) -> None:
        self.inbox: deque[Event] = deque()
        self.sent: list[tuple[str, Message, Blob]] = []
        self.epochs: dict[str, int] = {}
        self.folders: dict[str, str] = {}  # empty: no folder is ever bound
        self.peers: tuple[str, ...] = ()

    def send(self, peer: str, message: Message, blob: Blob = EMPTY) -> bool:
        if not self.epochs.get(peer):
            return False
        self.sent.append((peer, message, blob))
        return True

    def epoch(self, peer: str) -> int:
        return self.epochs.get(peer, 0)

    def writable(self, peer: str) -> bool:
        return True

    def is_receiving(self, peer: str) -> bool:
        return False

    def folder(self, peer: str) -> str:
        return self.folders.get(peer, "")

    def set_peers(self, peers: tuple[str, ...]) -> None:
        self.peers = peers


class ScriptedDisk:
    """Durable at once unless `held`."""

    def __init__(self) -> None:
        self.held = False
        self.is_full = False
        self.waiting: list[Batch] = []

    def write(self, batch: Batch) -> None:
        self.waiting.append(batch)

    def delete_before(self, index: int) -> None: ...

    def size_bytes(self) -> int:
        return 0

    def close(self) -> None: ...


class World:
    """Node "a:1" among `peers`; time stands still until `pass_time`."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        folder: Path,
        peers: tuple[str, ...] = ("b:1", "c:1"),
        *,
        entries: list[Entry] | None = None,
        term: int = 0,
        disabled: frozenset[str] = frozenset(),
        **settings: Any,
    ) -> None:
        self.now = 100.0
        self.connections = 0
        monkeypatch.setattr("pysyncobj.syncobj.monotonicTime", lambda: self.now)
        self.fatal: list[str] = []
        self.network = ScriptedNetwork()
        self.disk = ScriptedDisk()
        self.machine = ListMachine()
        found = Recovered(entries=list(entries or []), term=term)
        self.journal = Journal(found, 1, Guards(disabled))
        self.journal.attach(self.disk)
        config = ConsensusConfig(
            "a:1",
            "a:1",
            peers,
            folder,
            disabled_guards=disabled,
            on_fatal=self.fatal.append,
            **settings,
        )
        self.core = Core(
            config=config,
            machine=self.machine,
            journal=self.journal,
            network=self.network,
            counters=Counters(),
            wake=lambda: None,
            on_role=lambda role, at, leader: None,
            applied=1,
        )
        store = SnapshotStore(FILES, folder, CLUSTER)
        self.receiver = SnapshotReceiver(
            store, lambda job, done: done(job()), self.core.snapshot_arrived, Guards(disabled)
        )
        installer = Installer(
            self.core.acceptor, self.machine, self.receiver, store, self.core.roster
        )
        self.core.enable_snapshots(store, installer)

    @property
    def engine(self) -> Engine:
        return self.core.engine

    def run(self) -> None:
        for _ in range(3):
            self.core.run()
            self.finish_disk()

    def finish_disk(self) -> None:
        while self.disk.waiting and not self.disk.held:
            self.core.on_durable(self.disk.waiting.pop(0))

    def connect(self, *peers: str) -> None:
        for peer in peers:
            self.connections += 1  # an epoch is never used again
            self.network.epochs[peer] = self.connections
            self.network.inbox.append(Connected(peer, self.network.epochs[peer]))
        self.run()

    def disconnect(self, peer: str) -> None:
        epoch = self.network.epochs.pop(peer)
        self.network.inbox.append(Disconnected(peer, epoch))
        self.run()

    def receive(self, peer: str, message: Message, blob: bytes = b"") -> list[Message]:
        """Delivers one message and returns what was sent back to that peer."""
        self.network.sent.clear()
        epoch = self.network.epochs[peer]
        self.network.inbox.append(Received(peer, epoch, message, blob))
        self.run()
        return self.sent_to(peer)

    def append(
        self,
        peer: str,
        term: int,
        prev: tuple[int, int],
        *entries: Entry,
        commit: int = 1,
        seq: int = 1,
    ) -> list[Message]:
        message = Append(term, seq, commit, prev[0], prev[1], len(entries))
        return self.receive(peer, message, b"".join(encode_entries(list(entries)).parts))

    def sent_to(self, peer: str) -> list[Message]:
        return [message for to, message, _ in self.network.sent if to == peer]

    def pass_time(self, seconds: float) -> None:
        """Time passes as for a node that runs every 10 ms."""
        self.network.sent.clear()
        while seconds > 0:
            self.now += 0.01
            seconds -= 0.01
            self.run()

    def win_election(self, *voters: str) -> None:
        """Lets this node lead with the votes of the given peers."""
        self.connect(*[peer for peer in self.core.config.peers if not self.network.epoch(peer)])
        self.pass_time(0.7)
        question = next(m for _, m, _ in reversed(self.network.sent) if isinstance(m, PreVote))
        for voter in voters:
            self.receive(voter, PreVoteReply(self.engine.term(), question.round, True))
        for voter in voters:
            self.receive(voter, VoteReply(self.engine.term()))
        assert self.engine.role() is Role.LEADER

    def acknowledge(self, peer: str, index: int, *, seq: int = 99, term: int | None = None) -> None:
        own = self.engine.term() if term is None else term
        self.receive(peer, AppendReply(own, seq, index + 1, False, True))

    @property
    def log(self) -> list[tuple[int, int]]:
        return [entry[1:] for entry in self.journal[1:]]


def command(text: str, index: int, term: int) -> Entry:
    return (b"\x00" + text.encode(), index, term)
