"""The one thread that touches the journal's files: gather, write, fdatasync, report.

While one batch is on its way to the platter the next one gathers, so an idle disk adds no delay and
a busy one shares each fsync (group commit). It knows nothing of terms or guards. Any error is
final: after a failed fsync the page cache may lie, so nothing is ever retried.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from . import records
from .pin import token
from .recovery import SUFFIX, Recovered, Segment
from .storage import Open, Storage


@dataclass
class Batch:
    """Journal bytes that become durable together, and where the log stood before them."""

    generation: int
    last_index: int  # lowered by the journal when a truncation overtakes the write
    parts: list[bytes]
    opening: list[bytes] = field(default_factory=list)


class Disk(Protocol):
    """What the journal asks of a disk; the simulation brings its own."""

    def write(self, batch: Batch) -> None: ...
    def delete_before(self, index: int) -> None: ...
    def size_bytes(self) -> int: ...
    def close(self) -> None: ...


class SegmentFiles:
    """Appends batches to segment files, rolling to a new file at `segment_bytes`."""

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
        self._nonce = b""
        self.fsyncs = 0
        self.bytes_written = 0

    def append(self, batch: Batch) -> None:
        """Writes without syncing; a roll makes the previous file durable first."""
        if self._descriptor < 0 or self._segments[-1].size >= self._segment_bytes:
            self._roll(batch.opening)
        self._write(batch.parts)

    def sync(self) -> None:
        if self._fsync and self._descriptor >= 0:
            self._storage.sync_data(self._descriptor)
            self.fsyncs += 1

    def size_bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    def delete_before(self, index: int) -> None:
        """Removes whole leading files none of whose live entries is above `index`."""
        removed = False
        while len(self._segments) > 1 and self._segments[1].base_index <= index:
            self._storage.remove(self._segments.pop(0).path)
            removed = True
        if removed and self._fsync:
            self._storage.sync_folder(self._folder)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._storage.close(self._descriptor)
            self._descriptor = -1

    def _roll(self, opening: list[bytes]) -> None:
        self.sync()
        self.close()
        self._nonce = token(8)
        sequence = self._next_segment
        path = self._folder / f"{sequence:016d}{SUFFIX}"
        self._descriptor = self._storage.open(path, Open.CREATE)
        self._next_segment += 1
        base_index = records.RECORD.unpack_from(opening[-1])[1]
        self._segments.append(Segment(path, sequence, base_index, 0))
        header = records.SegmentHeader(sequence, self._nonce, self._cluster).encode()
        self._write_raw([header])
        self._write(opening)
        self.sync()
        if self._fsync:
            self._storage.sync_folder(self._folder)

    def _write(self, parts: list[bytes]) -> None:
        self._write_raw(records.frame_batch(self._nonce, self._next_batch, parts))
        self._next_batch += 1

    def _write_raw(self, parts: list[bytes]) -> None:
        segment = self._segments[-1]
        size = sum(map(len, parts))
        self._storage.write_at(self._descriptor, parts, segment.size)
        segment.size += size
        self.bytes_written += size


class DiskThread:
    """Runs SegmentFiles in its own thread; completions arrive through `call_soon_threadsafe`."""

    def __init__(
        self,
        files: SegmentFiles,
        post: Callable[..., object],
        on_durable: Callable[[Batch, float, int, int], None],
        on_error: Callable[[str], None],
    ) -> None:
        self._files = files
        self._post = post
        self._on_durable = on_durable
        self._on_error = on_error
        self._queue: queue.SimpleQueue[Batch | int | None] = queue.SimpleQueue()
        self._size = files.size_bytes()
        self._thread = threading.Thread(target=self._run, name="quorate-journal", daemon=True)
        self._abandoned = False
        self._thread.start()

    def write(self, batch: Batch) -> None:
        self._queue.put(batch)

    def delete_before(self, index: int) -> None:
        self._queue.put(index)

    def size_bytes(self) -> int:
        return self._size

    def close(self) -> None:
        """Finishes what was asked for, then ends the thread."""
        self._queue.put(None)
        self._thread.join()

    def abandon(self) -> None:
        """Ends the thread without writing what is still queued, as a crash would."""
        self._abandoned = True
        self.close()

    def _run(self) -> None:
        try:
            while self._work():
                pass
        except Exception as error:
            self._say(self._on_error, f"the journal cannot be written: {error}")
        finally:
            self._files.close()

    def _work(self) -> bool:
        """Takes everything that waits, in order; False at the end."""
        tasks: list[Batch | int | None] = [self._queue.get()]
        with contextlib.suppress(queue.Empty):
            while True:
                tasks.append(self._queue.get_nowait())
        if self._abandoned:
            return False
        started = time.perf_counter()
        last: Batch | None = None
        for task in tasks:
            if isinstance(task, Batch):
                self._files.append(task)
                last = task
        if last is not None:
            self._files.sync()
            self._size = self._files.size_bytes()
            took = time.perf_counter() - started
            files = self._files
            self._say(self._on_durable, last, took, files.fsyncs, files.bytes_written)
        for task in tasks:
            if isinstance(task, int):
                self._files.delete_before(task)
                self._size = self._files.size_bytes()
        return None not in tasks

    def _say(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._post(function, *arguments)
