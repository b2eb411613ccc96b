"""Streams a snapshot file to one follower in chunks that name their place.

The receiver says how far it is; the sender goes on from there, a few chunks ahead, so a lost
connection costs nothing but the chunks in flight. The open file stays readable even when a newer
snapshot has replaced it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .pin import now
from .snapstore import SnapshotStore
from .storage import Open, Storage
from .wire import EMPTY, Blob, SnapshotChunk, SnapshotReply

CHUNKS_AHEAD = 4
INSTALL_GRACE_S = 3.0  # far longer than a node's loop stands still while it takes a state over


class Sequence(Protocol):
    def next_seq(self) -> int: ...


class SnapshotSender:
    def __init__(
        self,
        storage: Storage,
        descriptor: int,
        index: int,
        term: int,
        chunk_bytes: int,
    ) -> None:
        self._storage = storage
        self._descriptor = descriptor
        self._index_term = term
        self._size = storage.file_bytes(descriptor)
        self._chunk_bytes = chunk_bytes
        self._offset = 0
        self._received = 0
        self._asked = False
        self._question_seq = -1  # the latest question, if no data was sent after it
        self._answered = False
        self._answered_at = 0.0
        self._is_complete = False
        self.index = index
        self.is_suspect = False  # refused after all of it had arrived, or unreadable here

    @classmethod
    def open(cls, store: SnapshotStore, chunk_bytes: int) -> SnapshotSender | None:
        """The newest snapshot in the folder; None if there is none that can be opened."""
        for snapshot in store.all():
            if snapshot.index in store.rotten:
                continue
            try:
                descriptor = store.storage.open(snapshot.path, Open.READ)
            except OSError:
                continue
            return cls(store.storage, descriptor, snapshot.index, snapshot.term, chunk_bytes)
        return None

    def close(self) -> None:
        if self._descriptor >= 0:
            self._storage.close(self._descriptor)
            self._descriptor = -1

    def is_installing(self) -> bool:
        """Everything has arrived and the follower is busy with it (C4). It is believed so for a
        while after its last answer: whoever is cut off from it must not lead on for long."""
        return self._is_complete and now() - self._answered_at < INSTALL_GRACE_S

    def pump(
        self, term: int, sequence: Sequence, *, heartbeat: bool, room: bool
    ) -> Iterator[tuple[SnapshotChunk, Blob]]:
        """What to send now: first a question where to begin, then chunks within the window."""
        sent = False
        if self._answered:
            limit = self._received + CHUNKS_AHEAD * self._chunk_bytes
            while room and not self.is_suspect and self._offset < min(limit, self._size):
                try:
                    data = self._storage.read_at(self._descriptor, self._chunk_bytes, self._offset)
                except OSError:
                    self.is_suspect = True
                    break
                yield self._chunk(term, sequence, self._offset), Blob.of((data,))
                self._offset += len(data)
                sent = True
        if sent:
            self._question_seq = -1
        elif heartbeat or not self._asked:
            self._asked = True
            question = self._chunk(term, sequence, self._offset)
            self._question_seq = question.seq
            yield question, EMPTY

    def on_reply(self, message: SnapshotReply) -> None:
        if message.index != self.index or message.offset > self._size:
            return
        if self._is_complete and message.offset < self._size:
            self.is_suspect = True
        if message.seq == self._question_seq or message.offset < self._received:
            # Everything sent before the question was seen, or the receiver began again.
            self._offset = message.offset
        self._answered, self._answered_at = True, now()
        self._received = message.offset
        self._is_complete = message.offset == self._size

    def _chunk(self, term: int, sequence: Sequence, offset: int) -> SnapshotChunk:
        return SnapshotChunk(
            term, sequence.next_seq(), self.index, self._index_term, self._size, offset
        )
