"""Takes finished jobs from the event loop to SQLite, because the loop must not wait for a disk.

`add` only keeps what the machine left of a log entry's jobs, whatever their number; one thread
turns that into chunks every few tenths of a second and writes them, another one reads. A row
can be read from the moment `add` returns: first from the buffer, then from the file. A crash loses
what was not synced, but not for good: the log is truncated only behind what `flushed` vouched for,
and replaying the rest adds the rows again, which changes nothing twice.

When the disk is full rows pile up in memory, within limits; beyond them rows are left out, loudly,
and `flushed` refuses from there on, so that the log keeps what the history lacks.
"""

import asyncio
import contextlib
import functools
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

from cluster.clock import Clock, SystemClock
from cluster.history.buffer import Buffer
from cluster.history.ended import Ended, size_bytes
from cluster.history.exchange import Exchange
from cluster.history.gaps import Gap, total_entries
from cluster.history.lacks import Lacks
from cluster.history.record import FinishedJob, HistoryError, PastEvent, Query
from cluster.history.store import Store
from cluster.machine.effects import Finished

GATHER_SECONDS = 0.2  # how long the writer waits for company of a first row
BATCH_ROWS = 2000  # unless so many have gathered before: more would hold up the loop for long
BUFFER_ROWS_MAX = 500_000
BUFFER_BYTES_MAX = 256 << 20  # counted only while writing fails
RETRY_SECONDS = 1.0  # after a failed write
PRUNE_SECONDS = 60.0
PRUNE_CHUNKS = 16  # per transaction: about ten milliseconds
ID_MAX = (1 << 63) - 1

log = logging.getLogger("quorate.history")

T = TypeVar("T")
_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class History:
    """The finished jobs of this node. All methods are called from one event loop."""

    def __init__(self, path: Path, retention_ms: int, clock: Clock) -> None:
        self._path = path
        self._retention_ms = retention_ms
        self._clock = clock
        self._writer_store = Store.repaired(path, clock.now_ms())
        self._reader_store = Store(path)
        standing = self._writer_store.standing()
        self._index_at_open = standing.index_last
        self._index_written = self._index_at_open
        self._index_added = 0
        self._lacks = Lacks(standing)
        self.exchange = Exchange(path, self._lacks, self._tell_gap)
        self._index_missing: int | None = None  # the first one that was left out
        self._changed = threading.Condition()  # guards what follows
        self._buffer = Buffer()
        self._writing = Buffer()
        self._events: list[PastEvent] = []  # of schedules, as the rows in the buffer
        self._events_writing: list[PastEvent] = []
        self._waiters: list[_Waiter] = []
        self._gap_listeners: list[Callable[[], None]] = []
        self._replaying = False  # the buffer has rows that the file may hold already
        self._closing = False
        self._failing = False
        self._failing_bytes = 0
        self._counts = dict.fromkeys(
            ("rows_written", "write_errors", "rows_lost", "pruned_chunks"), 0
        )
        self._prune_due_ms = 0
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="history-reader")
        self._writer = threading.Thread(target=self._run, name="history-writer", daemon=True)
        self._writer.start()

    @classmethod
    def open(cls, path: Path | str, retention_ms: int, clock: Clock | None = None) -> Self:
        """Opens or creates the file; `retention_ms` 0 keeps everything. Raises HistoryError."""
        return cls(Path(path), retention_ms, clock or SystemClock())

    def add(self, index: int, finished: Sequence[Finished]) -> None:
        """Takes what the log entry `index` finished, to keep. Never waits, never raises."""
        crowded = self._failing or self._buffer.rows >= BUFFER_ROWS_MAX
        if crowded and not self._has_room(index, finished):
            return
        with self._changed:
            buffer = self._buffer
            if index <= self._index_at_open:
                self._replaying = True
            self._came(index)
            is_first = not buffer.rows
            buffer.add(index, finished)
            if is_first or buffer.rows >= BATCH_ROWS:
                self._changed.notify()

    def add_schedule_events(self, index: int, events: Sequence[PastEvent]) -> None:
        """Takes what the log entry `index` did to schedules. Never waits, never raises."""
        crowded = self._failing or len(self._events) >= BUFFER_ROWS_MAX
        if crowded and not self._has_room(index, (), len(events)):
            return
        with self._changed:
            self._came(index)
            self._events += events
            self._changed.notify()

    def skip_to(self, index: int, until_ms: int) -> None:
        """The log goes on behind `index`: what entries up to there finished, if it has not come by
        here, is lacking from now on. All of it was finished at `until_ms` or before."""
        with self._changed:
            if not self._lacks.skip_to(index, until_ms):
                return
            self._index_added = max(self._index_added, index)
            self._index_missing = None  # within the gap
            self._changed.notify()
        gap = self._lacks.gaps[-1]
        log.warning("history %s lacks log entries %d to %d", self._path, gap[0], gap[2])
        self._tell_gap()

    def _tell_gap(self) -> None:
        for listener in self._gap_listeners:
            listener()

    def on_gap(self, listener: Callable[[], None]) -> None:
        """Called on the event loop when something begins to lack."""
        self._gap_listeners.append(listener)

    @property
    def lacks(self) -> Sequence[Gap]:
        """What is known not to be here, in the order of the log."""
        return self._lacks.gaps

    @property
    def is_complete(self) -> bool:
        """Whether all that the log finished is here, as far as it is kept."""
        return not self._lacks.gaps and self._index_missing is None

    def lacking(self, index: int) -> tuple[tuple[int, int], ...]:
        """The same as (first, last) entries, up to the entry `index`."""
        found = [gap.entries for gap in self._lacks.gaps]
        if self._index_missing is not None:
            found.append((self._index_missing, index))
        return tuple((first, min(last, index)) for first, last in found if first <= index)

    def kept_since_ms(self) -> int:
        """What finished before is dropped sooner or later; 0: everything is kept."""
        return self._clock.now_ms() - self._retention_ms if self._retention_ms else 0

    def get(self, job_id: int) -> FinishedJob | None:
        """A row that is not in the file yet."""
        with self._changed:
            row = self._buffer.find(job_id)
            other = self._writing.find(job_id)
        return row if other is None else _latest(row, other)

    async def lookup(self, job_id: int) -> FinishedJob | None:
        """The row of a job, wherever it is; None if it never finished or was pruned.

        Raises HistoryError when the file cannot be read.
        """
        row = self.get(job_id)
        if row is not None and row.index > self._index_at_open:
            return row
        stored = await self._off_loop(functools.partial(self._reader_store.find, job_id))
        return row if stored is None else _latest(row, stored)

    async def list(
        self,
        status: str | None = None,
        queue: str | None = None,
        name: str | None = None,
        tag: str | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[FinishedJob]:
        """Up to `limit` matching rows with ids below `before_id`, newest id first.

        Fewer mean that there are no more. Raises HistoryError when the file cannot be read.
        """
        query = Query(status, queue, name, tag)
        end_id = ID_MAX if before_id is None else before_id
        # Taken before the file is asked: a row that moves meanwhile is seen twice, not never.
        with self._changed:
            buffered = self._writing.then(self._buffer)
        stored: dict[int, FinishedJob] = {}
        next_id: int | None = end_id
        while next_id is not None and len(stored) < limit:
            page = functools.partial(self._reader_store.page, query, next_id, limit)
            rows, next_id = await self._off_loop(page)
            for row in rows:
                newer = buffered.find(row.job_id)
                if newer is None or newer.index <= row.index:
                    stored[row.job_id] = row
        for row in itertools.islice(buffered.newest(query, end_id), limit):
            stored.setdefault(row.job_id, row)
        return [stored[job_id] for job_id in sorted(stored, reverse=True)[:limit]]

    async def runs(
        self,
        schedule_id: str,
        nominal_ms: int | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> Sequence[FinishedJob]:
        """Finished jobs of a schedule, of one occurrence if it is named, newest first.

        Raises HistoryError when the file cannot be read."""
        end_id = ID_MAX if before_id is None else before_id
        with self._changed:
            buffered = self._writing.then(self._buffer)
        found = {row.job_id: row for row in buffered.runs(schedule_id, nominal_ms, end_id)}
        stored = functools.partial(self._reader_store.runs, schedule_id, nominal_ms, end_id, limit)
        for row in await self._off_loop(stored):
            found[row.job_id] = _latest(found.get(row.job_id), row)
        return [found[job_id] for job_id in sorted(found, reverse=True)[:limit]]

    async def schedule_events(
        self, schedule_id: str, before_seq: int | None = None, limit: int = 100
    ) -> Sequence[PastEvent]:
        """What happened to a schedule besides its runs, newest first.

        Raises HistoryError when the file cannot be read."""
        end_seq = ID_MAX if before_seq is None else before_seq
        with self._changed:
            buffered = [
                each
                for each in (*self._events_writing, *self._events)
                if each.schedule_id == schedule_id and each.seq < end_seq
            ]
        found = {each.seq: each for each in buffered}
        stored = functools.partial(self._reader_store.events, schedule_id, end_seq, limit)
        found.update({each.seq: each for each in await self._off_loop(stored)})
        return [found[seq] for seq in sorted(found, reverse=True)[:limit]]

    async def flushed(self, index: int) -> None:
        """Returns when all rows of log entries up to `index` are safely on disk.

        Waits while the disk is full. Raises HistoryError if rows were left out: the log must then
        be kept, and a restart replays them.
        """
        if self._closing:
            raise HistoryError(f"history {self._path} is closed")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        with self._changed:
            self._came(index)
            self._waiters.append((loop, waiter))
            self._changed.notify()
        await waiter
        if self._index_missing is not None and index >= self._index_missing:
            raise HistoryError(
                f"history {self._path} lacks jobs since log index {self._index_missing}: "
                "free space on its disk and restart the node"
            )

    async def close(self) -> None:
        """Writes and syncs what is buffered, once, then closes the file."""
        if self._closing:
            return
        with self._changed:
            self._closing = True
            self._changed.notify()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._writer.join)
        await loop.run_in_executor(None, self._reader.shutdown)
        await loop.run_in_executor(None, self.exchange.close)
        self._reader_store.close()

    def stats(self) -> dict[str, int | bool]:
        """Counters since the start, for metrics."""
        return {
            **self._counts,
            **self.exchange.counts,
            "complete": self.is_complete,
            "entries_lacking": total_entries(self._lacks.gaps),
            "rows_buffered": self._buffer.rows + self._writing.rows,
            "index_written": self._index_written,
            "failing": self._failing,
        }

    def _came(self, index: int) -> None:
        """Called with the lock held."""
        self._index_added = max(self._index_added, index)
        if self._index_missing is None:
            self._lacks.came(index)

    async def _off_loop(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await self.exchange.mended(lambda: loop.run_in_executor(self._reader, work))

    def _has_room(self, index: int, finished: Sequence[Finished], events: int = 0) -> bool:
        """While writing fails or lags: whether these rows may be kept. Loud when they may not."""
        size = size_bytes(finished) + 200 * events
        buffered = self._buffer.rows + self._writing.rows + len(self._events)
        buffered += len(finished) + events
        if self._failing_bytes + size <= BUFFER_BYTES_MAX and buffered <= BUFFER_ROWS_MAX:
            self._failing_bytes += size
            return True
        if self._index_missing is None:
            self._index_missing = index
            log.critical(
                "history %s cannot be written and memory is full: finished jobs from log index %d "
                "on are left out until the disk has space and the node is restarted",
                self._path,
                index,
            )
        self._counts["rows_lost"] += len(finished)
        return False

    def _run(self) -> None:
        """The writer thread."""
        waiters: list[_Waiter] = []
        prune_again = False
        while True:
            with self._changed:
                self._wait_for_work(bool(waiters), prune_again)
                closing = self._closing
                replaying, self._replaying = self._replaying, False
                waiters, self._waiters = waiters + self._waiters, []
                self._writing, self._buffer = self._buffer, Buffer()
                self._events_writing, self._events = self._events, []
                lacks = self._lacks
                lacks.writing, lacks.unwritten = lacks.unwritten, []
                reached = self._index_added, lacks.complete_to
            try:
                self._write(*reached, replaying, durable=bool(waiters) or closing)
                error: Exception | None = None
            except Exception as caught:
                error = caught
                self._put_back(replaying, error)
            if error is None or closing:
                for waiter in waiters:
                    _settle(*waiter, error)
                waiters = []
            if closing:
                self._writer_store.close()
                return
            prune_again = error is None and self._prune()

    def _wait_for_work(self, retrying: bool, prune_again: bool) -> None:
        """Returns when there is something to do; called with the lock held."""
        if self._failing:
            self._changed.wait_for(lambda: self._closing, RETRY_SECONDS)
            return
        idle_seconds = GATHER_SECONDS if prune_again else PRUNE_SECONDS
        self._changed.wait_for(self._has_work, idle_seconds if self._retention_ms else None)
        if (self._buffer.rows or self._events) and not (self._waiters or self._closing or retrying):
            self._changed.wait_for(self._is_urgent, GATHER_SECONDS)

    def _has_work(self) -> bool:
        return bool(
            self._buffer.rows
            or self._events
            or self._lacks.unwritten
            or self._waiters
            or self._closing
        )

    def _is_urgent(self) -> bool:
        return bool(self._buffer.rows >= BATCH_ROWS or self._waiters or self._closing)

    def _write(self, index_last: int, complete_to: int, replaying: bool, *, durable: bool) -> None:
        events, lacks = self._events_writing, self._lacks
        if self._writing.rows or events or lacks.writing or durable:
            ended = Ended.of(self._writing.lots)
            if replaying:
                ended = self._writer_store.without_known(ended)
            self._writer_store.write(
                ended,
                index_last,
                durable=durable,
                events=events,
                complete_to=complete_to,
                new_gaps=lacks.writing,
            )
            self._counts["rows_written"] += len(ended)
            self._index_written = max(self._index_written, index_last)
            self._writing, self._events_writing, lacks.writing = Buffer(), [], []
        if self._failing:
            self._failing = False
            self._failing_bytes = 0
            log.info("history %s is written again", self._path)

    def _put_back(self, replaying: bool, error: Exception) -> None:
        """After a failed write: everything waits in the buffer for the next try."""
        self._counts["write_errors"] += 1
        if not self._failing:
            log.error(
                "%s; finished jobs wait in memory",
                error,
                exc_info=not isinstance(error, HistoryError),
            )
        with self._changed:
            self._failing = True
            self._replaying = self._replaying or replaying
            self._buffer = self._writing.then(self._buffer)
            self._events = self._events_writing + self._events
            lacks = self._lacks
            lacks.unwritten, lacks.writing = lacks.pending(), []
            self._writing, self._events_writing = Buffer(), []

    def _prune(self) -> bool:
        """Removes a slice of what is too old; True if there may be more."""
        now_ms = self._clock.now_ms()
        if not self._retention_ms or now_ms < self._prune_due_ms:
            return False
        try:
            removed = self._writer_store.prune(self.kept_since_ms(), PRUNE_CHUNKS)
        except HistoryError as error:
            log.warning("%s", error)
            removed = 0
        self._counts["pruned_chunks"] += removed
        if removed < PRUNE_CHUNKS:
            self._prune_due_ms = now_ms + int(PRUNE_SECONDS * 1000)
        return removed == PRUNE_CHUNKS


def _latest(row: FinishedJob | None, other: FinishedJob) -> FinishedJob:
    return other if row is None or other.index >= row.index else row


def _settle(
    loop: asyncio.AbstractEventLoop, waiter: "asyncio.Future[None]", error: Exception | None
) -> None:
    def settle() -> None:
        if waiter.done():
            return
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(HistoryError(f"history is closed unwritten: {error}"))

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(settle)
