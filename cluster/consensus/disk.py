"""The one thread that touches the journal's files: gather, write, fdatasync, report.

While one batch is on its way to the platter the next one gathers, so an idle disk adds no delay and
a busy one shares each fsync (group commit). It knows nothing of terms or guards. A full disk makes
it wait and try again; any other error is final: after a failed fsync the page cache may lie, so
nothing is ever retried.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

from .segments import Batch, DiskFullError, SegmentFiles

TIDY_EVERY_S = 0.05


class Disk(Protocol):
    """What the journal asks of a disk; the simulation brings its own."""

    @property
    def is_full(self) -> bool:
        """There is no space beyond what is already taken: nothing large should be written."""

    def write(self, batch: Batch) -> None: ...
    def delete_before(self, index: int) -> None: ...
    def size_bytes(self) -> int: ...
    def close(self) -> None: ...


class GroupCommit:
    """The steps of the disk thread without the thread: also what a simulated disk runs."""

    def __init__(self, files: SegmentFiles) -> None:
        self.files = files
        self.is_full = False
        self._last: Batch | None = None

    def gather(self, batch: Batch) -> None:
        self.files.append(batch)
        self._last = batch

    def write(self) -> bool:
        """False when the disk is full: try again later."""
        try:
            self.files.write()
        except DiskFullError:
            self.is_full = True
            return False
        return True

    def sync(self) -> Batch | None:
        """The last batch that is durable now and was not before."""
        if not self.write() or self._last is None:
            return None
        self.files.sync()
        last, self._last = self._last, None
        return last

    def reserve(self) -> None:
        """Sees to it that the next file will have room, or notices that it will not."""
        try:
            self.files.reserve()
        except DiskFullError:
            self.is_full = True
        else:
            self.is_full = self.files.has_gathered

    def tidy(self) -> None:
        """What does not have to be done at once."""
        self.reserve()
        self.files.note_durable()


class DiskThread:
    """Runs GroupCommit in its own thread; completions arrive through `call_soon_threadsafe`."""

    def __init__(
        self,
        files: SegmentFiles,
        post: Callable[..., object],
        on_durable: Callable[[Batch, float, int, int], None],
        on_error: Callable[[str], None],
    ) -> None:
        self._files = files
        self._commit = GroupCommit(files)
        self._post = post
        self._on_durable = on_durable
        self._on_error = on_error
        self._queue: queue.SimpleQueue[Batch | int | None] = queue.SimpleQueue()
        self._size = files.size_bytes()
        self._thread = threading.Thread(target=self._run, name="quorate-journal", daemon=True)
        self._abandoned = False
        self._tidied = time.perf_counter()
        self._is_tidy = False
        self._thread.start()

    @property
    def is_full(self) -> bool:
        return self._commit.is_full

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
        tasks = self._take()
        if self._abandoned:
            return False
        started = time.perf_counter()
        for task in tasks:
            if isinstance(task, Batch):
                self._commit.gather(task)
        last = self._commit.sync()
        if last is not None or self._commit.is_full:
            self._is_tidy = False  # what did not fit must be tried again, whoever else calls
        if last is not None:
            self._size = self._files.size_bytes()
            took = time.perf_counter() - started
            files = self._files
            self._say(self._on_durable, last, took, files.fsyncs, files.bytes_written)
            if not files.has_spare:
                self._commit.reserve()  # at once: the next group may need it
        for task in tasks:
            if isinstance(task, int):
                self._files.delete_before(task)
                self._size = self._files.size_bytes()
        if None in tasks:
            self._files.note_durable()
            return False
        if not self._is_tidy and started - self._tidied > TIDY_EVERY_S:
            self._commit.tidy()
            self._tidied = started
            self._is_tidy = not self._commit.is_full
        return True

    def _take(self) -> list[Batch | int | None]:
        """Waits for something to do; empty when an idle moment came first."""
        tasks: list[Batch | int | None] = []
        wait = None if self._is_tidy else TIDY_EVERY_S
        with contextlib.suppress(queue.Empty):
            tasks.append(self._queue.get(timeout=wait))
            while True:
                tasks.append(self._queue.get_nowait())
        return tasks

    def _say(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._post(function, *arguments)
