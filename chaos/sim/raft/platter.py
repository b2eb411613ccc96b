"""What the disk of a node holds of its log, by the bytes that were synced and nothing else.

The node itself only believes it: here the durable image of its files is read when it starts, and
every batch is replayed when its sync has ended. Whoever checks promises compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.consensus import ConsensusStartError, records
from cluster.consensus.recovery import SUFFIX, read_journal

if TYPE_CHECKING:
    from chaos.sim.disk import MemoryStorage


class Platter:
    """`terms[0]` belongs to `first`, the point before the first entry."""

    def __init__(self, storage: MemoryStorage, folder: Path, cluster: bytes) -> None:
        self._storage = storage
        self._folder = folder
        self.first, self.terms = 1, [0]
        self.term, self.vote = 0, ""
        self.damage = ""
        try:
            found = read_journal(storage.durable_copy(), folder, cluster)
        except (ConsensusStartError, OSError) as error:
            self.damage = str(error)
            return
        self.first = found.base_index
        self.terms = [found.base_term, *(term for _, _, term in found.entries)]
        self.term, self.vote = found.term, found.vote or ""

    @property
    def last(self) -> int:
        return self.first + len(self.terms) - 1

    def term_at(self, index: int) -> int | None:
        position = index - self.first
        return self.terms[position] if 0 <= position < len(self.terms) else None

    def synced(self, parts: Sequence[bytes]) -> None:
        """The disk says that a batch of these parts is durable; believed if its file is."""
        for path in self._storage.files():
            if path.suffix == SUFFIX and self._storage.unsynced_bytes(path):
                return
        for kind, a, b, payload in records.records_in(memoryview(b"".join(parts))):
            self._replay(kind, a, b, payload)

    def _replay(self, kind: int, a: int, b: int, payload: bytes) -> None:
        if kind == records.ENTRY:
            self.terms.append(b)
        elif kind == records.HARD_STATE:
            self.term, self.vote = a, payload.decode()
        elif kind == records.TRUNCATE and a > self.first:
            del self.terms[a - self.first :]
        elif kind in (records.TRUNCATE, records.RESET):
            self.first, self.terms = (a - 1 if kind == records.TRUNCATE else a), [b]


def needed_bytes(storage: MemoryStorage, path: Path) -> range:
    """Where damage must be noticed. Of the journal's newest file: what an intact batch follows, as
    a damaged end may be what power loss has torn."""
    data = storage.read(path)
    header = records.SegmentHeader.decode(data)
    if path.suffix != SUFFIX or header is None:
        return range(len(data))
    begin, end = 0, records.SEGMENT_HEADER.size
    while (batch := records.batch_at(memoryview(data), end, header.nonce)) is not None:
        begin, end = end, end + records.BATCH_HEADER.size + len(batch[1])
    newest = max(name for name in storage.files() if name.suffix == SUFFIX)
    return range(begin if path == newest else end)
