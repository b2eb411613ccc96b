"""Adds chunks to the file, within a transaction that somebody else has begun.

Two write: the history's own thread what the log finishes here, and the exchange what a peer sends.
"""

from __future__ import annotations

import sqlite3
import zlib

from cluster.history import chunk, occasions
from cluster.history.chunk import Chunk, Values
from cluster.history.ended import Ended

BAND_BITS = 12
CHUNK_BYTES_MAX = 4 << 20  # encoded; larger ones are halved, so that a reader's memory is bounded
LABELS_CHARACTERS_MAX = 4096  # a chunk with more different labels than this is always read

STATUS_BITS = {"completed": 1, "failed": 2, "cancelled": 4, "skipped": 8}
OTHER_STATUS_BIT = 16


class Inserts:
    """The chunks of one transaction; `done` ends it but for the commit."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._span_max = 0
        (self._chunk_last,) = db.execute(
            "SELECT max(chunk_last, (SELECT ifnull(max(id), 0) FROM chunk)) FROM progress"
        ).fetchone()

    def ended(self, ended: Ended, start: int, stop: int) -> None:
        """Rows of one band as the machine left them."""
        values = ended.values(start, stop)
        encoded = chunk.encode(values, stop - start)
        if len(encoded) > CHUNK_BYTES_MAX and stop - start > 1:
            middle = (start + stop) // 2
            self.ended(ended, start, middle)
            self.ended(ended, middle, stop)
            return
        self._insert(values, *chunk.compressed(encoded))

    def chunk(self, rows: Chunk, form: int, blob: bytes) -> None:
        """A chunk that was encoded elsewhere, with its content."""
        names = ("job_id", "index", "finished_ms", "status", "queue", "name", "tags")
        self._insert({name: rows.column(name) for name in names}, form, blob)
        schedules = rows.column("schedule_id")
        if any(schedules):
            runs = zip(
                rows.ids, schedules, rows.column("nominal_ms"), rows.column("finished_ms"),
                strict=True,
            )  # fmt: skip
            occasions.write(self._db, [run for run in runs if run[1]], ())

    def done(self, index_last: int = 0, complete_to: int | None = None) -> None:
        """Written even if unchanged: a commit without a page would not sync the log."""
        self._db.execute(
            "UPDATE progress SET chunk_last = ?, span_max = max(span_max, ?)",
            (self._chunk_last, self._span_max),
        )
        if complete_to is not None:
            self._db.execute(
                "UPDATE progress SET index_last = max(index_last, ?),"
                " index_known = max(index_last, ?), complete_to = max(ifnull(complete_to, 0), ?)",
                (index_last, index_last, complete_to),
            )

    def _insert(self, values: Values, form: int, blob: bytes) -> None:
        ids, indexes = values["job_id"], values["index"]
        first_index, last_index = min(indexes), max(indexes)
        self._chunk_last += 1
        self._span_max = max(self._span_max, last_index - first_index)
        self._db.execute(
            "INSERT INTO chunk (id, band, first_id, last_id, finished_ms, statuses, labels, rows,"
            " form, first_index, last_index, jobs, sum)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._chunk_last,
                ids[0] >> BAND_BITS,
                ids[0],
                ids[-1],
                max(values["finished_ms"]),
                *_summary(values),
                blob,
                form,
                first_index,
                last_index,
                len(ids),
                zlib.crc32(blob),
            ),
        )


def _summary(values: Values) -> tuple[int, str | None]:
    """The statuses as bits; all queues, names and tags as one text, or None if it is too long."""
    statuses = 0
    for status in set(values["status"]):
        statuses |= STATUS_BITS.get(status, OTHER_STATUS_BIT)
    labels = {f"q={queue}" for queue in set(values["queue"])}
    labels |= {f"n={name}" for name in set(values["name"])}
    labels |= {f"t={tag}" for tags in set(map(tuple, values["tags"])) for tag in tags}
    text = "\n" + "\n".join(sorted(labels)) + "\n"
    return statuses, (text if len(text) <= LABELS_CHARACTERS_MAX else None)
