"""How far the journal was durable, noted beside it: tells a torn write from damage.

A batch at the end that does not check out may be a write that power loss has torn; then nobody was
promised anything. If its number is not above the mark, it was durable once, and what is gone is
damage. Written after the fact, in idle moments and never synced for its own sake: a mark that is
behind, or lost, only means that less damage is noticed.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from .storage import Open, Storage, is_full

FILE = "durable.mark"
SLOT = struct.Struct("<8sQI")  # magic, number of the last durable batch, crc
MAGIC = b"QRTMARK1"
SLOT_BYTES = 512  # a sector each: a torn write leaves the other one


class DurableMark:
    """Writes the mark, one slot after the other."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        self._storage = storage
        self._path = folder / FILE
        self._descriptor = -1
        self._slot = 0
        self._noted = 0

    def note(self, batch: int) -> None:
        """Batches up to this number are durable."""
        if batch <= self._noted:
            return
        head = SLOT.pack(MAGIC, batch, 0)[:-4]
        slot = head + struct.pack("<I", zlib.crc32(head))
        try:
            if self._descriptor < 0:
                how = Open.UPDATE if self._storage.exists(self._path) else Open.CREATE
                self._descriptor = self._storage.open(self._path, how)
            self._storage.write_at(self._descriptor, [slot], self._slot * SLOT_BYTES)
        except OSError as error:
            if not is_full(error):
                raise
            return
        self._noted = batch
        self._slot = 1 - self._slot

    def sync(self) -> None:
        if self._descriptor >= 0:
            self._storage.sync_data(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._storage.close(self._descriptor)
            self._descriptor = -1


def read_mark(storage: Storage, folder: Path) -> int:
    """The highest number noted in an intact slot; 0 if there is none."""
    path = folder / FILE
    data = storage.read(path) if storage.exists(path) else b""
    found = 0
    for start in (0, SLOT_BYTES):
        slot = data[start : start + SLOT.size]
        if len(slot) == SLOT.size:
            magic, batch, crc = SLOT.unpack(slot)
            if magic == MAGIC and crc == zlib.crc32(slot[:-4]):
                found = max(found, batch)
    return found
