"""Cuts a parcel out of this node's history: what comes next in the order of the log.

The file has no such order: a chunk holds neighbours by id that ended within the same moment. So the
chunks that reach into the next entries are taken apart, and their rows sorted. `span_max`, how many
entries any chunk reaches over, bounds where such chunks can be.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence

from cluster.history import chunk, occasions
from cluster.history.chunk import Chunk, gathered
from cluster.history.gaps import Place
from cluster.history.inserts import BAND_BITS
from cluster.history.parcel import BYTES_MAX, ROWS_MAX, Parcel
from cluster.history.schema import transaction

CHUNKS_MAX = 512  # are looked at to find how far a parcel reaches
PLACED_CHUNKS = 128  # in one go

ReadChunk = Callable[[int], Chunk]
Pick = tuple[int, int, int, int]  # index, job id, which chunk, position in it


def cut(
    db: sqlite3.Connection, read_chunk: ReadChunk, start: Place, last_index: int, since_ms: int
) -> Parcel:
    """The next rows behind `start`, at most up to the entry `last_index`, that finished at
    `since_ms` or later. The caller has made sure that they are all here."""
    span_max, pruned_ms = db.execute("SELECT span_max, pruned_ms FROM progress").fetchone()
    reach = _reach(db, start, last_index, since_ms, span_max)
    first_index = start.entry + bool(start.after_id)  # what was begun came with its events
    reach, events = occasions.events_between(db, first_index, reach, since_ms)
    found = db.execute(
        "SELECT id FROM chunk WHERE last_index BETWEEN ? AND ? AND first_index <= ?"
        " AND finished_ms >= ? ORDER BY id",
        (start.entry, reach + span_max, reach, since_ms),
    ).fetchall()
    chunks = [read_chunk(chunk_id) for (chunk_id,) in found]
    rows = sorted(_picks(chunks, start, reach, since_ms))
    taken = _fitting(chunks, rows)
    whole = len(taken) == len(rows)
    end = Place(reach + 1) if whole else Place(*taken[-1][:2])
    return Parcel(
        *start,
        *end,
        rows=len(taken),
        kept_from_ms=pruned_ms,
        chunks=list(_packed(chunks, taken)),
        events=[each for each in events if whole or occasions.index_of(each) <= end.entry],
    )


def place(db: sqlite3.Connection) -> bool:
    """Finds out what some chunks of earlier releases reach over; False when all are known."""
    found = db.execute(
        "SELECT id, form, rows FROM chunk WHERE last_index IS NULL LIMIT ?", (PLACED_CHUNKS,)
    ).fetchall()
    known = []
    for chunk_id, form, blob in found:
        indexes = Chunk.decode(form, blob).indexes
        known.append((min(indexes), max(indexes), len(indexes), zlib.crc32(blob), chunk_id))
    if known:
        with transaction(db):
            db.executemany(
                "UPDATE chunk SET first_index = ?, last_index = ?, jobs = ?, sum = ? WHERE id = ?",
                known,
            )
            span_max = max(last - first for first, last, *_ in known)
            db.execute("UPDATE progress SET span_max = max(span_max, ?)", (span_max,))
    return bool(found)


def _reach(
    db: sqlite3.Connection, start: Place, last_index: int, since_ms: int, span_max: int
) -> int:
    """The entry up to which chunks hold enough rows for a parcel, if not more."""
    found = db.execute(
        "SELECT last_index, jobs, length(rows) FROM chunk WHERE last_index BETWEEN ? AND ?"
        " AND first_index <= ? AND finished_ms >= ? ORDER BY last_index LIMIT ?",
        (start.entry, last_index + span_max, last_index, since_ms, CHUNKS_MAX),
    ).fetchall()
    rows = size_bytes = 0
    for chunk_last, jobs, blob_bytes in found:
        rows += jobs
        size_bytes += blob_bytes
        if rows >= ROWS_MAX or size_bytes >= BYTES_MAX:
            return min(int(chunk_last), last_index)
    return last_index if len(found) < CHUNKS_MAX else min(int(found[-1][0]), last_index)


def _picks(chunks: Sequence[Chunk], start: Place, last_index: int, since_ms: int) -> Iterator[Pick]:
    for number, rows in enumerate(chunks):
        finished = rows.column("finished_ms")
        for position, key in enumerate(zip(rows.indexes, rows.ids, strict=True)):
            if start < key and key[0] <= last_index and finished[position] >= since_ms:
                yield *key, number, position


def _fitting(chunks: Sequence[Chunk], rows: Sequence[Pick]) -> Sequence[Pick]:
    """As many as fit into one parcel; one at least, if there are any."""
    size_bytes = 0
    for taken, (_, _, number, position) in enumerate(rows[:ROWS_MAX]):
        payload, output, text = (
            chunks[number].column(name)[position] for name in ("payload", "output", "log")
        )
        size_bytes += len(payload) + len(output or b"") + len(text)
        if size_bytes > BYTES_MAX and taken:
            return rows[:taken]
    return rows[:ROWS_MAX]


def _packed(chunks: Sequence[Chunk], rows: Sequence[Pick]) -> Iterator[tuple[int, bytes]]:
    """The rows as chunks of one band each, in which no job is twice."""
    lots: dict[tuple[int, int], list[Pick]] = {}
    times: dict[int, int] = {}
    for row in rows:
        job_id = row[1]
        times[job_id] = times.get(job_id, 0) + 1
        lots.setdefault((job_id >> BAND_BITS, times[job_id]), []).append(row)
    for lot in lots.values():
        lot.sort(key=lambda row: row[1])
        values = gathered([(chunks[number], position) for _, _, number, position in lot])
        yield chunk.compressed(chunk.encode(values, len(lot)))
