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
import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cluster.history import chunk, occasions
from cluster.history.chunk import Chunk, Values
from cluster.history.ended import Ended
from cluster.history.record import FinishedJob, HistoryError, PastEvent, Query

BAND_BITS = 12
CHUNK_BYTES_MAX = 4 << 20  # encoded; larger ones are halved, so that a reader's memory is bounded
CACHE_BYTES = 32 << 20
LABELS_CHARACTERS_MAX = 4096  # a chunk with more different labels than this is always read
BANDS_PER_PAGE = 32  # a listing looks at no more bands in one go
SCHEMA_VERSION = 3  # 2: runs and events of schedules; 3: chunks by columns
APPLICATION_ID = 0x51754F48  # "QuOH"

STATUS_BITS = {"completed": 1, "failed": 2, "cancelled": 4, "skipped": 8}
OTHER_STATUS_BIT = 16

SCHEMA = """
CREATE TABLE IF NOT EXISTS chunk (
  id INTEGER PRIMARY KEY,
  band INTEGER NOT NULL,
  first_id INTEGER NOT NULL,
  last_id INTEGER NOT NULL,
  finished_ms INTEGER NOT NULL,
  statuses INTEGER NOT NULL,
  labels TEXT,
  rows BLOB NOT NULL,
  form INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX IF NOT EXISTS chunk_band ON chunk (band);
CREATE INDEX IF NOT EXISTS chunk_finished ON chunk (finished_ms);
CREATE TABLE IF NOT EXISTS progress (id INTEGER PRIMARY KEY, index_last INTEGER NOT NULL);
INSERT OR IGNORE INTO progress VALUES (1, 0);
"""

# What a file of an earlier release lacks, by the release that brought it.
UPGRADES = {3: "ALTER TABLE chunk ADD COLUMN form INTEGER NOT NULL DEFAULT 1"}


class Store:
    """One connection. Every method may raise HistoryError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = _connect(path)
        self._chunks: OrderedDict[int, Chunk] = OrderedDict()
        self._cached_bytes = 0

    def index_last(self) -> int:
        """The highest Raft index whose rows are in the file."""
        return int(self._read("SELECT index_last FROM progress")[0][0])

    def write(
        self,
        ended: Ended,
        index_last: int,
        *,
        durable: bool,
        events: Sequence[PastEvent] = (),
    ) -> None:
        """Adds jobs in one transaction.

        With `durable`, this and all earlier transactions are on disk when it returns.
        """
        try:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for start, stop in _bands(ended.ids):
                    self._insert(ended, start, stop)
                occasions.write(self._db, ended.runs(), events)
                # Written even if unchanged: a commit without a page would not sync the log.
                self._db.execute(
                    "UPDATE progress SET index_last = max(index_last, ?)", (index_last,)
                )
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._failure("written", error) from error

    def without_known(self, ended: Ended) -> Ended:
        """Leaves out jobs that the file holds already, as they ended here or later."""
        fresh: list[int] = []
        for start, stop in _bands(ended.ids):
            known: dict[int, int] = {}
            for rows in self._band(ended.ids[start] >> BAND_BITS):
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
        latest = _latest([self._chunk(chunk_id) for (chunk_id,) in chunk_ids], job_id)
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
            raise self._failure("read", error) from error
        found = [self.find(job_id) for job_id in ids]
        return [row for row in found if row is not None]

    def events(self, schedule_id: str, before_seq: int, limit: int) -> list[PastEvent]:
        """What happened to a schedule, newest first."""
        try:
            return occasions.events(self._db, schedule_id, before_seq, limit)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise self._failure("read", error) from error

    def prune(self, finished_before_ms: int, chunks_max: int) -> int:
        """Removes up to `chunks_max` chunks whose jobs all finished earlier; returns how many."""
        chunks = self._read(
            "SELECT id, first_id, last_id FROM chunk WHERE finished_ms < ?"
            " ORDER BY finished_ms LIMIT ?",
            (finished_before_ms, chunks_max),
        )
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("DELETE FROM chunk WHERE id = ?", [row[:1] for row in chunks])
                occasions.prune_runs(self._db, [row[1:] for row in chunks], finished_before_ms)
                occasions.prune_events(self._db, finished_before_ms)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._failure("pruned", error) from error
        return len(chunks)

    def close(self) -> None:
        self._db.close()

    def _insert(self, ended: Ended, start: int, stop: int) -> None:
        values = ended.values(start, stop)
        encoded = chunk.encode(values, stop - start)
        if len(encoded) > CHUNK_BYTES_MAX and stop - start > 1:
            middle = (start + stop) // 2
            self._insert(ended, start, middle)
            self._insert(ended, middle, stop)
            return
        form, blob = chunk.compressed(encoded)
        self._db.execute(
            "INSERT INTO chunk (band, first_id, last_id, finished_ms, statuses, labels, rows, form)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                ended.ids[start] >> BAND_BITS,
                ended.ids[start],
                ended.ids[stop - 1],
                max(values["finished_ms"]),
                *_summary(values),
                blob,
                form,
            ),
        )

    def _band(self, band: int) -> list[Chunk]:
        chunk_ids = self._read("SELECT id FROM chunk WHERE band = ?", (band,))
        return [self._chunk(chunk_id) for (chunk_id,) in chunk_ids]

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
            raise self._failure("decoded", error) from error

    def _chunk(self, chunk_id: int) -> Chunk:
        """A chunk's rows; none if it was pruned meanwhile."""
        cached = self._chunks.get(chunk_id)
        if cached is not None:
            self._chunks.move_to_end(chunk_id)
            return cached
        blobs = self._read("SELECT form, rows FROM chunk WHERE id = ?", (chunk_id,))
        if not blobs:
            return Chunk.empty()
        try:
            rows = Chunk.decode(*blobs[0])
        except (zlib.error, msgspec.MsgspecError, ValueError) as error:
            raise self._failure("decoded", error) from error
        self._chunks[chunk_id] = rows
        self._cached_bytes += rows.size_bytes
        while self._cached_bytes > CACHE_BYTES:
            self._cached_bytes -= self._chunks.popitem(last=False)[1].size_bytes
        return rows

    def _read(self, sql: str, arguments: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._db.execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            raise self._failure("read", error) from error

    def _failure(self, verb: str, error: Exception) -> HistoryError:
        return HistoryError(f"history {self._path} cannot be {verb} ({error}): {_fix(error)}")


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
    except (OSError, sqlite3.Error) as error:
        raise HistoryError(
            f"history {path} cannot be opened ({error}): check the folder and its rights"
        ) from error
    try:
        (application_id,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and application_id != APPLICATION_ID:
            raise HistoryError(f"history {path} is the database of something else: move it away")
        if version > SCHEMA_VERSION:
            raise HistoryError(
                f"history {path} was written by a newer release (format {version}, this one knows "
                f"{SCHEMA_VERSION}): upgrade this node or move the file away"
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA journal_size_limit = 67108864")
        if version < SCHEMA_VERSION:
            _upgrade(db, version if tables else SCHEMA_VERSION)
    except sqlite3.Error as error:
        db.close()
        raise HistoryError(f"history {path} cannot be opened ({error}): {_fix(error)}") from error
    except HistoryError:
        db.close()
        raise
    return db


def _upgrade(db: sqlite3.Connection, version: int) -> None:
    """Makes what is missing since that version, all or nothing."""
    steps = [UPGRADES[later] for later in sorted(UPGRADES) if later > version]
    db.executescript(
        f"BEGIN IMMEDIATE; {SCHEMA} {occasions.SCHEMA} {';'.join([*steps, ''])}"
        f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
    )


def _fix(error: Exception) -> str:
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return "free space on its disk or check the disk"
    if "locked" in text or "busy" in text:
        return "another process uses it, end that one"
    if isinstance(error, sqlite3.OperationalError):
        return "check the folder, its rights and its disk"
    return (
        "the file is damaged, move it away (the jobs finished so far are then unknown to this node)"
    )


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


def _summary(values: Values) -> tuple[int, str | None]:
    """The statuses as bits; all queues, names and tags as one text, or None if it is too long."""
    statuses = 0
    for status in set(values["status"]):
        statuses |= STATUS_BITS.get(status, OTHER_STATUS_BIT)
    labels = {f"q={queue}" for queue in set(values["queue"])}
    labels |= {f"n={name}" for name in set(values["name"])}
    labels |= {f"t={tag}" for tags in set(values["tags"]) for tag in tags}
    text = "\n" + "\n".join(sorted(labels)) + "\n"
    return statuses, (text if len(text) <= LABELS_CHARACTERS_MAX else None)


def _labels_of_query(query: Query) -> Iterator[str]:
    for kind, value in (("q", query.queue), ("n", query.name), ("t", query.tag)):
        if value is not None:
            yield f"\n{kind}={value}\n"
