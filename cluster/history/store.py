"""Finished jobs in SQLite, many to a row: what ended together and has neighbouring ids is a chunk.

Why not a row per job: sqlite3 lets go of the interpreter lock at every step, so next to a busy
event loop a thread that inserts rows one by one waits for the lock as often (measured: 2,500
rows/s, against 100,000 in chunks). What is in a chunk and why it is small: `chunk`, `columns`.

A chunk holds ids of one band only (4096 neighbouring ids), so a lookup reads the chunks of one
band: few when the load is high, many but tiny when it is low. What chunks contain is summed up
beside them (statuses, queues, names, tags), so that a filtered listing skips most of them unread.
A job that finished twice (a dead one, retried) has two rows; readers take the one with the higher
Raft index.

One `Store` belongs to one thread. Knows nothing of buffers, loops or retention policy.
"""

import bisect
import contextlib
import logging
import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from cluster.history import gaps, occasions
from cluster.history.chunk import Chunk
from cluster.history.ended import Ended
from cluster.history.gaps import Gap
from cluster.history.inserts import BAND_BITS, OTHER_STATUS_BIT, STATUS_BITS, Inserts
from cluster.history.record import FinishedJob, HistoryDamagedError, HistoryError, PastEvent, Query
from cluster.history.schema import check, connect, failure, set_aside, transaction

CACHE_BYTES = 32 << 20
BANDS_PER_PAGE = 32  # a listing looks at no more bands in one go

log = logging.getLogger("quorate.history")


class Standing(NamedTuple):
    """How far the file has come. `index_last`: of any row; `complete_to`: all that entries up to
    there finished is in the file but for `gaps`, None in a file of an earlier release; `pruned_ms`:
    what finished before may be gone."""

    index_last: int
    complete_to: int | None
    pruned_ms: int
    gaps: list[Gap]


class Store:
    """One connection. Every method may raise HistoryError."""

    def __init__(self, path: Path, cache_bytes: int = CACHE_BYTES) -> None:
        self._path = path
        self._db = connect(path)
        self._cache_bytes = cache_bytes
        self._chunks: OrderedDict[int, Chunk] = OrderedDict()
        self._cached_bytes = 0

    @classmethod
    def repaired(cls, path: Path, now_ms: int) -> Self:
        """The file, or a new one in place of a broken one: the log and the peers have what was in
        it, and what nobody has shows as lacking."""
        try:
            store = cls(path)
            try:
                check(store._db, path)
            except HistoryError:
                store.close()
                raise
            return store
        except HistoryDamagedError as error:
            aside = set_aside(path, now_ms)
            log.error("%s; it is set aside as %s", error, aside.name)
            return cls(path)

    @property
    def db(self) -> sqlite3.Connection:
        """For what else is done on this connection, by the same thread."""
        return self._db

    def index_last(self) -> int:
        """The highest Raft index whose rows are in the file."""
        return self.standing().index_last

    def standing(self) -> Standing:
        sql = "SELECT index_last, index_known, complete_to, pruned_ms FROM progress"
        try:
            index_last, index_known, complete_to, pruned_ms = self._read(sql)[0]
            if index_known != index_last:
                complete_to = None  # an earlier release has written since
            return Standing(index_last, complete_to, pruned_ms, gaps.read(self._db))
        except sqlite3.Error as error:
            raise failure(self._path, "read", error) from error

    def write(
        self,
        ended: Ended,
        index_last: int,
        *,
        durable: bool,
        events: Sequence[PastEvent] = (),
        complete_to: int = 0,
        new_gaps: Sequence[Gap] = (),
    ) -> None:
        """Adds jobs in one transaction, and how far the file has come with them.

        With `durable`, this and all earlier transactions are on disk when it returns.
        """
        try:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            with transaction(self._db):
                inserts = Inserts(self._db)
                for start, stop in _bands(ended.ids):
                    inserts.ended(ended, start, stop)
                occasions.write(self._db, ended.runs(), events)
                if new_gaps:
                    gaps.add(self._db, new_gaps)
                inserts.done(index_last, complete_to)
        except sqlite3.Error as error:
            raise failure(self._path, "written", error) from error

    def without_known(self, ended: Ended) -> Ended:
        """Leaves out jobs that the file holds already, as they ended here or later."""
        fresh: list[int] = []
        for start, stop in _bands(ended.ids):
            known: dict[int, int] = {}
            for rows in self._readable(ended.ids[start] >> BAND_BITS):
                for job_id, index in zip(rows.ids, rows.indexes, strict=True):
                    known[job_id] = max(index, known.get(job_id, 0))
            fresh += [
                position
                for position in range(start, stop)
                if known.get(ended.ids[position], -1) < ended.indexes[position]
            ]
        return ended.only(fresh)

    def find(self, job_id: int) -> FinishedJob | None:
        """The latest row of one job."""
        sql = "SELECT id FROM chunk WHERE band = ? AND first_id <= ? AND last_id >= ?"
        chunk_ids = self._read(sql, (job_id >> BAND_BITS, job_id, job_id))
        latest = _latest([self.chunk(chunk_id) for (chunk_id,) in chunk_ids], job_id)
        return None if latest is None else self._row(*latest)

    def page(
        self, query: Query, before_id: int, limit: int
    ) -> tuple[list[FinishedJob], int | None]:
        """Up to `limit` rows with smaller ids, newest first, and where to go on; None at the end.

        Looks at a bounded number of bands, so there may be fewer rows, or none, before the end.
        """
        sql = "SELECT DISTINCT band FROM chunk WHERE band <= ?"
        arguments: list[Any] = [(before_id - 1) >> BAND_BITS]
        if query.status is not None:
            sql += " AND statuses & ?"
            arguments.append(STATUS_BITS.get(query.status, OTHER_STATUS_BIT))
        for label in _labels_of_query(query):
            sql += " AND (labels IS NULL OR instr(labels, ?))"
            arguments.append(label)
        sql += " ORDER BY band DESC LIMIT ?"
        found: list[FinishedJob] = []
        bands = self._read(sql, (*arguments, BANDS_PER_PAGE))
        for (band,) in bands:
            for rows, position in self._newest(query, band, before_id):
                found.append(self._row(rows, position))
                if len(found) == limit:
                    return found, found[-1].job_id
        return found, (bands[-1][0] << BAND_BITS if len(bands) == BANDS_PER_PAGE else None)

    def runs(
        self, schedule_id: str, nominal_ms: int | None, before_id: int, limit: int
    ) -> list[FinishedJob]:
        """Finished jobs of a schedule (of one occurrence) with smaller ids, newest first."""
        try:
            ids = occasions.run_ids(self._db, schedule_id, nominal_ms, before_id, limit)
        except sqlite3.Error as error:
            raise failure(self._path, "read", error) from error
        found = [self.find(job_id) for job_id in ids]
        return [row for row in found if row is not None]

    def events(self, schedule_id: str, before_seq: int, limit: int) -> list[PastEvent]:
        """What happened to a schedule, newest first."""
        try:
            return occasions.events(self._db, schedule_id, before_seq, limit)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise failure(self._path, "read", error) from error

    def prune(self, finished_before_ms: int, chunks_max: int) -> int:
        """Removes up to `chunks_max` chunks whose jobs all finished earlier; returns how many."""
        chunks = self._read(
            "SELECT id, first_id, last_id FROM chunk WHERE finished_ms < ?"
            " ORDER BY finished_ms LIMIT ?",
            (finished_before_ms, chunks_max),
        )
        try:
            with transaction(self._db):
                self._db.executemany("DELETE FROM chunk WHERE id = ?", [row[:1] for row in chunks])
                occasions.prune_runs(self._db, [row[1:] for row in chunks], finished_before_ms)
                occasions.prune_events(self._db, finished_before_ms)
                if chunks:
                    self._db.execute(
                        "UPDATE progress SET pruned_ms = max(pruned_ms, ?)", (finished_before_ms,)
                    )
        except sqlite3.Error as error:
            raise failure(self._path, "pruned", error) from error
        return len(chunks)

    def forget(self) -> None:
        """Chunks that were read within a transaction which failed are none."""
        self._chunks.clear()
        self._cached_bytes = 0

    def close(self) -> None:
        self._db.close()

    def _band(self, band: int) -> list[Chunk]:
        chunk_ids = self._read("SELECT id FROM chunk WHERE band = ?", (band,))
        return [self.chunk(chunk_id) for (chunk_id,) in chunk_ids]

    def _readable(self, band: int) -> Iterator[Chunk]:
        """Without damaged chunks: whoever asks for what is in them finds that out."""
        for (chunk_id,) in self._read("SELECT id FROM chunk WHERE band = ?", (band,)):
            with contextlib.suppress(HistoryDamagedError):
                yield self.chunk(chunk_id)

    def _newest(self, query: Query, band: int, before_id: int) -> Iterator[tuple[Chunk, int]]:
        """Where the matching rows of a band are, newest first. The band is read as a whole, so that
        rows which another chunk replaced are left out."""
        chunks = self._band(band)
        found = [
            (rows.ids[position], rows.indexes[position], number, position)
            for number, rows in enumerate(chunks)
            for position in rows.matching(query, before_id)
        ]
        for job_id, index, number, position in sorted(found, reverse=True):
            latest = _latest(chunks, job_id)
            if latest is not None and latest[0].indexes[latest[1]] == index:
                yield chunks[number], position

    def _row(self, rows: Chunk, position: int) -> FinishedJob:
        try:
            return rows.row(position)
        except msgspec.MsgspecError as error:
            raise failure(self._path, "decoded", error) from error

    def chunk(self, chunk_id: int) -> Chunk:
        """A chunk's rows; none if it was pruned meanwhile."""
        cached = self._chunks.get(chunk_id)
        if cached is not None:
            self._chunks.move_to_end(chunk_id)
            return cached
        blobs = self._read("SELECT form, rows, sum FROM chunk WHERE id = ?", (chunk_id,))
        if not blobs:
            return Chunk.empty()
        form, blob, expected = blobs[0]
        try:
            if expected is not None and zlib.crc32(blob) != expected:
                raise ValueError(f"chunk {chunk_id} has another checksum")
            rows = Chunk.decode(form, blob)
        except (zlib.error, msgspec.MsgspecError, ValueError) as error:
            damage = failure(self._path, "decoded", error)
            if isinstance(damage, HistoryDamagedError):
                damage.chunk_id = chunk_id
            raise damage from error
        self._chunks[chunk_id] = rows
        self._cached_bytes += rows.size_bytes
        while self._cached_bytes > self._cache_bytes:
            self._cached_bytes -= self._chunks.popitem(last=False)[1].size_bytes
        return rows

    def _read(self, sql: str, arguments: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._db.execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            raise failure(self._path, "read", error) from error


def _bands(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cuts sorted ids where a band ends."""
    start = 0
    while start < len(ids):
        band_end_id = ((ids[start] >> BAND_BITS) + 1) << BAND_BITS
        stop = bisect.bisect_left(ids, band_end_id, start)
        yield start, stop
        start = stop


def _latest(chunks: Sequence[Chunk], job_id: int) -> tuple[Chunk, int] | None:
    """Where a job's last row is."""
    latest: tuple[Chunk, int] | None = None
    index = -1
    for rows in chunks:
        position = rows.find(job_id)
        if position is not None and rows.indexes[position] > index:
            latest, index = (rows, position), rows.indexes[position]
    return latest


def _labels_of_query(query: Query) -> Iterator[str]:
    for kind, value in (("q", query.queue), ("n", query.name), ("t", query.tag)):
        if value is not None:
            yield f"\n{kind}={value}\n"
