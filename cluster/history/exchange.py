"""Hands history to peers and takes theirs in, in a thread and on a connection of its own.

What is given is complete or refused: a stretch that this node lacks itself is never given as if
nothing had happened in it. What is taken in is written with the gap that it closes, in one
transaction, so a crash neither loses a piece nor writes one twice.
"""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from cluster.history import chunk, cutting, gaps, occasions, rot
from cluster.history.chunk import Chunk, gathered
from cluster.history.gaps import Gap, Place
from cluster.history.inserts import BAND_BITS, Inserts
from cluster.history.lacks import Lacks
from cluster.history.parcel import Parcel, ParcelError, Seal
from cluster.history.record import HistoryDamagedError, HistoryError
from cluster.history.schema import failure, transaction
from cluster.history.store import Standing, Store

CACHE_BYTES = 8 << 20  # pieces are read once, one after the other
OFFERS_MAX = 2  # wait or run at the same time; peers have time

T = TypeVar("T")


class LackingError(HistoryError):
    """This node cannot give what was asked for: it lacks it itself."""


class BusyError(HistoryError):
    """Not now; the same question will be answered later."""


class Taken(NamedTuple):
    """What became of a parcel: where the next one begins, what was new in it, what still lacks."""

    end: Place
    rows: int
    events: int
    gaps: list[Gap]


class Exchange:
    """One per history. All methods are called from one event loop."""

    def __init__(self, path: Path, lacks: Lacks, on_gap: Callable[[], None]) -> None:
        """`on_gap` is called when something begins to lack because it is damaged."""
        self._path = path
        self._lacks = lacks
        self._on_gap = on_gap
        self._unrepaired = rot.Unrepaired()
        self._store: Store | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history-exchange")
        self._offers = 0
        self._is_placed = False
        self.counts = dict.fromkeys(
            ("rows_fetched", "bytes_fetched", "rows_given", "chunks_damaged", "reads_damaged"), 0
        )

    async def standing(self) -> Standing:
        """How far the file has come: what peers may ask it for."""
        return await self._run(lambda store: store.standing())

    async def offer(self, seal: Seal, start: Place, last_index: int, since_ms: int) -> bytes:
        """The next parcel behind `start`, sealed.

        Raises LackingError, BusyError, or HistoryError when the file cannot be read."""
        if self._offers >= OFFERS_MAX:
            raise BusyError("others are being given history")
        self._offers += 1
        try:
            rows, sealed = await self.mended(
                lambda: self._run(lambda store: self._cut(store, seal, start, last_index, since_ms))
            )
        finally:
            self._offers -= 1
        self.counts["rows_given"] += rows
        return sealed

    async def take(self, seal: Seal, start: Place, sealed: bytes) -> Taken:
        """Writes a parcel that closes a part of a gap, from `start` on.

        Raises ParcelError if it is not what was asked for, HistoryError if it cannot be written."""
        pending = self._lacks.pending()
        taken = await self.mended(
            lambda: self._run(lambda store: _write(store, seal, start, sealed))
        )
        self._lacks.learn(taken.gaps, pending)
        self.counts["rows_fetched"] += taken.rows
        self.counts["bytes_fetched"] += len(sealed)
        return taken

    async def forget_expired(self, since_ms: int) -> None:
        """Where nothing would be kept, nothing is lacking."""
        expired = [gap for gap in self._lacks.gaps if gap.until_ms < since_ms]
        if expired:
            pending = [gap for gap in self._lacks.pending() if gap not in expired]
            self._lacks.learn(await self._run(lambda store: _drop(store, expired)), pending)

    async def mended(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` reads, without the damaged chunks that it comes across: they are set aside
        and their rows are lacking from then on. Raises HistoryError for other damage."""
        while True:
            try:
                return await attempt()
            except HistoryDamagedError as error:
                if not (error.chunk_id and await self._set_aside(error.chunk_id)):
                    self.counts["reads_damaged"] += 1
                    self._unrepaired.tell(error)
                    raise

    async def _set_aside(self, chunk_id: int) -> bool:
        pending = self._lacks.pending()

        def take_out(store: Store) -> tuple[bool, list[Gap]]:
            is_out = rot.take_out(store.db, self._path, chunk_id)
            return is_out, gaps.read(store.db)

        is_out, found = await self._run(take_out)
        if is_out:
            self._lacks.learn(found, pending)
            self.counts["chunks_damaged"] += 1
            self._on_gap()
        return is_out

    def close(self) -> None:
        """Waits for what is under way; for any thread."""
        self._thread.shutdown()
        if self._store is not None:
            self._store.close()
            self._store = None

    async def _run(self, work: Callable[[Store], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def _guarded(self, work: Callable[[Store], T]) -> T:
        """In the thread: on the open file, with SQLite's errors translated."""
        if self._store is None:
            self._store = Store(self._path, CACHE_BYTES)
            # A piece that a power failure takes is fetched again: no need to wait for the disk.
            self._store.db.execute("PRAGMA synchronous = NORMAL")
        try:
            return work(self._store)
        except sqlite3.Error as error:
            raise failure(self._path, "exchanged", error) from error

    # -- giving ----------------------------------------------------------------------------------

    def _cut(
        self, store: Store, seal: Seal, start: Place, last_index: int, since_ms: int
    ) -> tuple[int, bytes]:
        if not self._is_placed:
            self._place(store)
        standing = store.standing()
        lacking = [gap.entries for gap in standing.gaps]
        for first, last in gaps.between(standing.complete_to or 0, lacking):
            if first <= start.entry <= last:
                end = min(last, last_index)
                parcel = cutting.cut(store.db, store.chunk, start, end, since_ms)
                return parcel.rows, seal.close(parcel)
        raise LackingError(f"this node's history lacks log entry {start.entry}")

    def _place(self, store: Store) -> None:
        """A file of an earlier release is looked through once, a little with each question."""
        try:
            self._is_placed = not cutting.place(store.db)
        except (zlib.error, msgspec.MsgspecError, ValueError) as error:
            raise failure(self._path, "decoded", error) from error
        if not self._is_placed:
            raise BusyError("the history of an earlier release is being looked through")


def _write(store: Store, seal: Seal, start: Place, sealed: bytes) -> Taken:
    parcel = seal.open(sealed)
    if parcel.start != start or parcel.end <= start:
        raise ParcelError("a piece of history is of another place in the log")
    chunks = [(form, blob, _checked(form, blob, parcel)) for form, blob in parcel.chunks]
    rows = 0
    try:
        with transaction(store.db):
            _close(store.db, start, parcel.end)
            inserts = Inserts(store.db)
            for form, blob, read in chunks:
                rows += _insert(store, inserts, form, blob, read)
            occasions.write(store.db, [], parcel.events)
            inserts.done()
            kept_from_ms = (parcel.kept_from_ms,)
            store.db.execute("UPDATE progress SET pruned_ms = max(pruned_ms, ?)", kept_from_ms)
            left = gaps.read(store.db)
    except BaseException:
        store.forget()  # the ids of its chunks will be given again
        raise
    return Taken(parcel.end, rows, len(parcel.events), left)


def _close(db: sqlite3.Connection, start: Place, end: Place) -> None:
    """Takes a stretch out of the gap in which it lies."""
    for gap in gaps.read(db):
        if gap.start <= start and end <= Place(gap.last_index + 1):
            gaps.replace(db, gap, gaps.subtract(gap, start, end))
            return
    raise HistoryError(f"nothing is lacking at log entry {start.entry}, or it is not written yet")


def _checked(form: int, blob: bytes, parcel: Parcel) -> Chunk:
    """A chunk of a parcel, taken apart. Raises ParcelError if it could not be read later on."""
    try:
        rows = Chunk.decode(form, blob)
        ids = rows.ids
        places = [Place(*place) for place in zip(rows.indexes, ids, strict=True)]
        bands = {job_id >> BAND_BITS for job_id in ids}
        for position in range(len(ids)):
            rows.row(position)
    except (zlib.error, msgspec.MsgspecError, ValueError, TypeError) as error:
        raise ParcelError(f"a piece of history cannot be taken apart: {error}") from error
    if len(bands) != 1 or any(low >= high for low, high in pairwise(ids)):
        raise ParcelError("a piece of history has jobs out of order")
    if not all(parcel.start < place <= parcel.end for place in places):
        raise ParcelError("a piece of history has rows of another place in the log")
    return rows


def _insert(store: Store, inserts: Inserts, form: int, blob: bytes, rows: Chunk) -> int:
    """Writes what is not in the file already; returns how many rows that was."""
    found = store.db.execute(
        "SELECT id FROM chunk WHERE band = ?"
        " AND (last_index IS NULL OR last_index >= ? AND first_index <= ?)",
        (rows.ids[0] >> BAND_BITS, min(rows.indexes), max(rows.indexes)),
    ).fetchall()
    known: set[tuple[int, int]] = set()
    for (chunk_id,) in found:
        other = store.chunk(chunk_id)
        known.update(zip(other.ids, other.indexes, strict=True))
    keys = zip(rows.ids, rows.indexes, strict=True)
    fresh = [position for position, key in enumerate(keys) if key not in known]
    if len(fresh) == len(rows.ids):
        inserts.chunk(rows, form, blob)
    elif fresh:
        values = gathered([(rows, position) for position in fresh])
        form, blob = chunk.compressed(chunk.encode(values, len(fresh)))
        inserts.chunk(Chunk.decode(form, blob), form, blob)
    return len(fresh)


def _drop(store: Store, expired: Sequence[Gap]) -> list[Gap]:
    with transaction(store.db):
        for gap in expired:
            gaps.replace(store.db, gap, [])
        return gaps.read(store.db)
