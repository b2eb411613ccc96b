"""The journal's files as they grow: gather, write one frame, sync it; roll to the next file.

Each group becomes one frame, so a power loss leaves all of it or a torn end, never a later part
without an earlier one. Space is taken before it is needed: a file is made in full, and the next one
lies ready as a spare, so a disk fills up while there still is room to write the term and the vote.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from . import records
from .mark import DurableMark
from .pin import token
from .recovery import SPARE, SUFFIX, Recovered, Segment
from .storage import Open, Storage, is_full


class DiskFullError(Exception):
    """Nothing was lost and nothing was written; the same call may succeed later."""


@dataclass
class Batch:
    """Journal bytes that become durable together, and where the log stood before them."""

    generation: int
    last_index: int  # lowered by the journal when a truncation overtakes the write
    parts: list[bytes]
    opening: list[bytes] = field(default_factory=list)


class SegmentFiles:
    """For one thread. After a DiskFullError everything is as before; an OSError ends the node."""

    def __init__(
        self,
        storage: Storage,
        folder: Path,
        cluster: bytes,
        found: Recovered,
        segment_bytes: int,
        *,
        fsync: bool,
    ) -> None:
        self._storage = storage
        self._folder = folder
        self._cluster = cluster
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        self._segments = list(found.segments)
        self._next_batch = found.next_batch
        self._next_segment = found.next_segment
        self._descriptor = -1
        self._spare = -1
        self._parts: list[bytes] = []
        self._opening: list[bytes] = []
        self._nonce = b""
        self._opening_end = 0
        self._mark = DurableMark(storage, folder)
        self._is_synced = True
        self.fsyncs = 0
        self.bytes_written = 0

    # What the hot path needs ---------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return not self._segments

    @property
    def has_gathered(self) -> bool:
        return bool(self._parts)

    def append(self, batch: Batch) -> None:
        """Gathers; nothing is touched."""
        if not self._parts:
            self._opening = batch.opening
            self._parts = batch.parts
        else:
            self._parts.extend(batch.parts)

    def write(self) -> None:
        """Writes what was gathered as one frame, without syncing; may roll to a new file first."""
        if not self._parts:
            return
        size = records.BATCH_HEADER.size + sum(map(len, self._parts))
        if self._descriptor < 0 or self._size + size > self._segment_bytes:
            self._make_room(size)
        frame = records.frame_batch(self._nonce, self._next_batch, self._parts)
        try:
            self._storage.write_at(self._descriptor, frame, self._size)
        except OSError as error:
            raise as_full(error) from error
        self._segments[-1].size += size
        self._next_batch += 1
        self.bytes_written += size
        self._parts = []
        self._is_synced = False

    def sync(self) -> None:
        """Writes what was gathered and makes everything written durable."""
        self.write()
        if self._fsync and self._descriptor >= 0:
            self._storage.sync_data(self._descriptor)
            self.fsyncs += 1
        self._is_synced = True

    # What can wait -------------------------------------------------------------------------

    def note_durable(self) -> None:
        """Notes how far the journal is durable; see `mark`."""
        if self._is_synced and self._fsync:
            self._mark.note(self._next_batch - 1)

    @property
    def has_spare(self) -> bool:
        return self._spare >= 0

    def reserve(self) -> None:
        """Takes the space of the next file; DiskFullError when there is none left."""
        if self._spare >= 0:
            return
        path = self._folder / SPARE
        wanted = self._segment_bytes
        try:
            self._spare = self._storage.open(path, Open.REPLACE)
            is_taken = self._storage.allocate(self._spare, wanted)
            if not is_taken and self._storage.free_bytes(self._folder) < 2 * wanted:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._drop_spare()
            raise as_full(error) from error

    def begin(self, opening: list[bytes]) -> None:
        """The first file of a new journal; from then on an empty journal is a lost one."""
        self._opening = opening
        self._roll()

    def size_bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    def delete_before(self, index: int) -> None:
        """Removes whole leading files none of whose live entries is above `index`.

        One durable removal after the other: what is left never has a gap.
        """
        while len(self._segments) > 1 and self._segments[1].base_index <= index:
            self._storage.remove(self._segments.pop(0).path)
            if self._fsync:
                self._storage.sync_folder(self._folder)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._storage.close(self._descriptor)
            self._descriptor = -1
        if self._spare >= 0:
            self._storage.close(self._spare)
            self._spare = -1
        self._mark.close()

    # Rolling -------------------------------------------------------------------------------

    @property
    def _size(self) -> int:
        return self._segments[-1].size

    def _make_room(self, size: int) -> None:
        if self._descriptor < 0 or not self._is_fresh():
            self._roll()
        wanted = self._size + size
        if wanted > self._segment_bytes:  # one frame that is larger than a usual file
            try:
                self._storage.allocate(self._descriptor, wanted)
            except OSError as error:
                raise as_full(error) from error

    def _is_fresh(self) -> bool:
        """Holds its opening only: a roll would gain nothing."""
        return self._size == self._opening_end

    def _roll(self) -> None:
        """The new file is whole before it gets its name, so a file by that name is never torn."""
        self.reserve()
        if not self._is_synced:
            self._storage.sync_data(self._descriptor)
        sequence, nonce = self._next_segment, token(8)
        path = self._folder / f"{sequence:016d}{SUFFIX}"
        header = records.SegmentHeader(sequence, nonce, self._cluster).encode()
        frame = records.frame_batch(nonce, self._next_batch, self._opening)
        try:
            self._storage.write_at(self._spare, [header, *frame], 0)
            self._sync(self._spare)
            self._storage.rename(self._folder / SPARE, path)
        except OSError as error:
            self._drop_spare()
            raise as_full(error) from error
        if self._fsync:
            self._storage.sync_folder(self._folder)
        self._finish_file()
        self._descriptor, self._spare, self._nonce = self._spare, -1, nonce
        base_index = records.RECORD.unpack_from(self._opening[-1])[1]
        self._opening_end = len(header) + sum(map(len, frame))
        self._segments.append(Segment(path, sequence, base_index, self._opening_end))
        self._next_segment += 1
        self._next_batch += 1
        self.bytes_written += self._opening_end
        self._is_synced = True

    def _finish_file(self) -> None:
        """Gives back what the old file did not need."""
        if self._descriptor >= 0:
            self._storage.truncate(self._descriptor, self._size)
            self._storage.close(self._descriptor)

    def _sync(self, descriptor: int) -> None:
        if self._fsync:
            self._storage.sync(descriptor)
            self.fsyncs += 1

    def _drop_spare(self) -> None:
        if self._spare >= 0:
            self._storage.close(self._spare)
            self._spare = -1
            self._storage.remove(self._folder / SPARE)


def as_full(error: OSError) -> Exception:
    """A full disk is told apart, as it is the one error that passes."""
    return DiskFullError(error.strerror) if is_full(error) else error
