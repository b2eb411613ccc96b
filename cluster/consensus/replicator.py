"""The leader's side of replication: windowed sending, shared encoding, honest acknowledgements.

Replaces the library's sender, which rewinds on every ack (A3), resends without bound and encodes
each batch once per follower. An ack is believed only if it is of this term (A4), and the engine
hears of it only up to what a majority of disks holds (A9).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .parts import Parts
from .snapsend import SnapshotSender
from .snapstore import SnapshotStore
from .space import Space
from .wire import EMPTY, Append, AppendReply, Blob, SnapshotReply, encode_entries

BATCH_BYTES = 1 << 20
BATCH_ENTRIES = 1024
WINDOW_BYTES = 32 << 20
WINDOW_MESSAGES = 128
OWN_LAG_ENTRIES_MAX = 100  # what the leader's disk lacks is held in memory


@dataclass
class Progress:
    """What the leader knows of one follower within this term."""

    seq: int = 0
    rewind_seq: int = 0  # replies to messages before it may not rewind again
    acked: int = 0  # durable at the follower; may be ahead of the leader's own disk
    told_commit: int = 0
    epoch: int = 0  # of the connection that all this is about
    in_flight: deque[tuple[int, int]] = field(default_factory=deque)  # (last index, bytes)
    in_flight_bytes: int = 0
    sender: SnapshotSender | None = None

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def forget_in_flight(self) -> None:
        self.in_flight.clear()
        self.in_flight_bytes = 0
        self.rewind_seq = self.seq + 1

    def window_open(self) -> bool:
        return len(self.in_flight) < WINDOW_MESSAGES and self.in_flight_bytes < WINDOW_BYTES


class Replicator:
    def __init__(self, parts: Parts, space: Space) -> None:
        self._space = space
        self._config = parts.config
        self._engine = parts.engine
        self._journal = parts.journal
        self._network = parts.network
        self._outbox = parts.outbox
        self._guards = parts.guards
        self._counters = parts.counters
        self._speaks_late = parts.guards.on("persist_then_speak")
        self._has_window = parts.guards.on("flow_window")
        self._roster = parts.roster
        self._progress: dict[str, Progress] = {}
        self._encoded: dict[int, tuple[int, bool, Blob]] = {}  # first -> (last, is full, blob)
        self.snapshots: SnapshotStore | None = None
        self.on_suspect: Callable[[int], None] = lambda index: None

    # Life of a leadership ------------------------------------------------------------------

    def begin(self) -> None:
        self.end()
        self.members_changed()

    def members_changed(self) -> None:
        """Learners are sent everything too; who left is sent nothing more."""
        for peer in [peer for peer in self._progress if peer not in self._roster.others]:
            self._drop_sender(self._progress.pop(peer))
        for peer in self._roster.others:
            if peer not in self._progress:
                self._progress[peer] = Progress()

    def end(self) -> None:
        self.drop_senders()
        self._progress = {}
        self._encoded.clear()

    def peer_connected(self, peer: str) -> None:
        """What was in flight is gone: go on behind the last ack instead of waiting for a reset."""
        progress = self._progress.get(peer)
        if progress is None or not self._engine.is_leader():
            return
        epoch = self._network.epoch(peer)
        if epoch == progress.epoch:
            return
        progress.epoch = epoch
        progress.forget_in_flight()
        progress.told_commit = 0
        self._drop_sender(progress)
        if progress.acked:
            self._engine.set_next_index(peer, progress.acked + 1)

    def acked(self, peer: str) -> int:
        progress = self._progress.get(peer)
        return progress.acked if progress is not None else 0

    def lowest_sender_index(self) -> int | None:
        """Index of the oldest snapshot in transfer: the log behind it will be needed (C5)."""
        found = [p.sender.index for p in self._progress.values() if p.sender is not None]
        return min(found) if found else None

    def trust(self, index: int) -> None:
        """That snapshot is intact after all: what arrived was not."""
        for progress in self._progress.values():
            if progress.sender is not None and progress.sender.index == index:
                progress.sender.is_suspect = False

    def drop_senders(self) -> None:
        """Transfers begin anew, with the newest snapshot."""
        for progress in self._progress.values():
            self._drop_sender(progress)

    # Sending -------------------------------------------------------------------------------

    def send(self, *, heartbeat: bool, announce: bool = False) -> None:
        """New entries to everybody; else a heartbeat, or the commit index if that is news."""
        if not self._engine.is_leader() or not self._may_speak():
            return
        for peer, progress in self._progress.items():
            epoch = self._network.epoch(peer)
            if epoch:
                if epoch != progress.epoch:  # its news still waits behind others (a pause, say)
                    self.peer_connected(peer)
                self._send_to(peer, progress, heartbeat=heartbeat, announce=announce)

    def _may_speak(self) -> bool:
        """A lone voter leads before its disk knows the term; a loss of power would let it lead the
        same term twice, and a learner could not tell the two apart."""
        journal = self._journal
        is_known = journal.hard_state_generation <= journal.durable_generation
        return is_known or not self._speaks_late

    def _send_to(self, peer: str, progress: Progress, *, heartbeat: bool, announce: bool) -> None:
        engine, journal = self._engine, self._journal
        if engine.next_index(peer) <= journal.first_index or progress.sender is not None:
            self._send_snapshot(peer, progress, heartbeat=heartbeat)
            return
        sent = False
        has_space = not self._space.is_out_at(peer)
        while (
            engine.next_index(peer) <= journal.last_index
            and has_space
            and (progress.window_open() or not self._has_window)
            and self._network.writable(peer)
        ):
            if not self._send_batch(peer, progress):
                return
            sent = True
        commit = engine.commit_index()
        if not sent and (heartbeat or (announce and progress.told_commit < commit)):
            previous = engine.next_index(peer) - 1
            seq = progress.next_seq() if heartbeat else 0
            term = journal.term_at(previous) or 0
            self._network.send(peer, Append(engine.term(), seq, commit, previous, term, 0), EMPTY)
            progress.told_commit = commit

    def _send_batch(self, peer: str, progress: Progress) -> bool:
        engine = self._engine
        first = engine.next_index(peer)
        last, blob = self._batch(first)
        previous_term = self._journal.term_at(first - 1) or 0
        count = last - first + 1
        commit = engine.commit_index()
        message = Append(
            engine.term(), progress.next_seq(), commit, first - 1, previous_term, count
        )
        if not self._network.send(peer, message, blob):
            return False
        engine.set_next_index(peer, last + 1)
        progress.told_commit = commit
        progress.in_flight.append((last, blob.size))
        progress.in_flight_bytes += blob.size
        self._counters.entries_sent += count
        return True

    def _batch(self, first: int) -> tuple[int, Blob]:
        """Encoded once, whoever asks first; only the newest few batches are remembered."""
        known = self._encoded.get(first)
        journal = self._journal
        # A short batch is encoded anew when more entries could join it by now.
        if known is not None and (known[1] or known[0] == journal.last_index):
            return known[0], known[2]
        entries = journal.entries(first, BATCH_BYTES, BATCH_ENTRIES)
        blob = encode_entries(entries)
        last = entries[-1][1]
        if len(self._encoded) >= 4:
            self._encoded.pop(next(iter(self._encoded)))
        self._encoded[first] = (last, last < journal.last_index, blob)
        return last, blob

    # Answers -------------------------------------------------------------------------------

    def on_reply(self, peer: str, message: AppendReply) -> None:
        engine = self._engine
        progress = self._progress.get(peer)
        if progress is None or not engine.is_leader():
            return
        if self._guards.on("a4_ack_term") and message.term != engine.term():
            self._counters.dropped["ack_of_other_term"] += 1
            return
        if message.reset:
            self._rewind(peer, progress, message)
        elif message.success:
            self._matched(peer, progress, message)
        else:
            engine.note_answer(peer)

    def _rewind(self, peer: str, progress: Progress, message: AppendReply) -> None:
        engine = self._engine
        engine.note_answer(peer)
        if self._guards.on("a3_no_rewind") and message.seq < progress.rewind_seq:
            self._counters.dropped["stale_reset"] += 1
            return
        target = max(1, min(message.next_index, self._journal.last_index + 1))
        progress.forget_in_flight()
        self._counters.rewinds += 1
        if target <= progress.acked:
            # It lost what it had acknowledged (a disk without fsync): never count that again.
            self._counters.errors["ack_withdrawn"] += 1
            progress.acked = target - 1
            engine.set_match_index(peer, min(engine.match_index(peer), target - 1))
        self._deliver(peer, target, reset=True, success=False)

    def _matched(self, peer: str, progress: Progress, message: AppendReply) -> None:
        engine, journal = self._engine, self._journal
        index = message.next_index - 1
        if index > journal.last_index:
            self._counters.errors["ack_of_the_future"] += 1
            return
        progress.acked = max(progress.acked, index)
        while progress.in_flight and progress.in_flight[0][0] <= index:
            progress.in_flight_bytes -= progress.in_flight.popleft()[1]
        if progress.sender is not None and index >= progress.sender.index:
            self._counters.snapshots_sent += 1
            self._drop_sender(progress)
        before = engine.next_index(peer)
        counted = index
        if self._guards.on("a9_own_disk"):
            counted = min(index, self._countable())
        self._deliver(peer, counted + 1, reset=False, success=True)
        if self._guards.on("a3_no_rewind"):
            engine.set_next_index(peer, max(before, index + 1))
        self.count_disks()

    def count_disks(self) -> None:
        """Acks that were ahead of a majority of disks may count now."""
        if not self._engine.is_leader():
            return
        countable = self._countable()
        for peer, progress in self._progress.items():
            counted = min(progress.acked, countable)
            if counted > self._engine.match_index(peer):
                self._engine.set_match_index(peer, counted)

    def is_commit_due(self) -> bool:
        """The engine was told of more than it has committed; it will have after the next turn."""
        return self._countable() > self._engine.commit_index()

    def _countable(self) -> int:
        """The engine takes the leader for one that always holds everything. So it hears of acks
        only up to what a majority of disks holds, whichever they are: a slow disk of the leader
        holds up nothing that enough others have, until it is far behind."""
        return min(self._on_most_disks(), self._journal.durable_index + OWN_LAG_ENTRIES_MAX)

    def _on_most_disks(self) -> int:
        """The last entry that the disks of a majority hold."""
        held = [self.acked(peer) for peer in self._roster.voters]
        if self._roster.is_voter:
            held.append(self._journal.durable_index)
        held.sort(reverse=True)
        return held[self._roster.quorum - 1]

    def others_are_ahead(self) -> bool:
        """A quorum without this leader has on disk what its own disk still lacks."""
        durable = self._journal.durable_index
        return self._roster.is_majority(
            {peer for peer, progress in self._progress.items() if progress.acked > durable}
        )

    def _deliver(self, peer: str, next_index: int, *, reset: bool, success: bool) -> None:
        self._engine.deliver(
            peer,
            {
                "type": "next_node_idx",
                "next_node_idx": next_index,
                "reset": reset,
                "success": success,
            },
        )

    # Snapshots -----------------------------------------------------------------------------

    def _send_snapshot(self, peer: str, progress: Progress, *, heartbeat: bool) -> None:
        if progress.sender is None:
            if self.snapshots is not None:
                progress.sender = SnapshotSender.open(
                    self.snapshots, self._config.snapshot_chunk_bytes
                )
            if progress.sender is None:
                self._counters.errors["no_snapshot_to_send"] += 1
                return
        sender = progress.sender
        if self._believes_busy(progress):
            self._engine.note_answer(peer)
        room = self._network.writable(peer) and not self._space.is_out_at(peer)
        for chunk, blob in sender.pump(
            self._engine.term(), progress, heartbeat=heartbeat, room=room
        ):
            if not self._network.send(peer, chunk, blob):
                return
        if sender.is_suspect:
            self.on_suspect(sender.index)

    def awaits_install(self) -> bool:
        """Somebody is taken for alive without a word from it, as it is busy with a snapshot."""
        return any(self._believes_busy(progress) for progress in self._progress.values())

    def _believes_busy(self, progress: Progress) -> bool:
        if not self._guards.on("c4_install_alive"):
            return False
        return progress.sender is not None and progress.sender.is_installing()

    def on_snapshot_reply(self, peer: str, message: SnapshotReply) -> None:
        progress = self._progress.get(peer)
        if progress is None or not self._engine.is_leader():
            return
        if message.term != self._engine.term():
            return
        self._engine.note_answer(peer)
        if progress.sender is not None:
            progress.sender.on_reply(message)
            if progress.sender.is_suspect:
                self.on_suspect(progress.sender.index)
            self._send_to(peer, progress, heartbeat=False, announce=False)

    def _drop_sender(self, progress: Progress) -> None:
        if progress.sender is not None:
            progress.sender.close()
            progress.sender = None
