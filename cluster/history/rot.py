"""Damage that shows while the node runs: a chunk that is not what was written.

It is taken out of the file, and what the log entries that it held rows of finished is lacking from
then on, as if it had never come by here: the peers have it. That the chunk's neighbours hold rows
of the same entries does no harm, for what is there already is not taken in a second time.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from cluster.history import gaps
from cluster.history.gaps import Gap
from cluster.history.record import HistoryError
from cluster.history.schema import failure, transaction

log = logging.getLogger("quorate.history")


def take_out(db: sqlite3.Connection, path: Path, chunk_id: int) -> bool:
    """Puts a damaged chunk into a file of its own. False if it is to stay where it is: of a chunk
    of an earlier release nobody can say what would be lacking. Raises HistoryError."""
    try:
        with transaction(db):
            return _take_out(db, path, chunk_id)
    except (OSError, sqlite3.Error) as error:
        raise failure(path, "repaired", error) from error


def _take_out(db: sqlite3.Connection, path: Path, chunk_id: int) -> bool:
    found = db.execute(
        "SELECT first_index, last_index, finished_ms, rows FROM chunk WHERE id = ?", (chunk_id,)
    ).fetchone()
    if found is None:
        return True  # somebody else was faster
    first, last, finished_ms, blob = found
    if first is None or last is None:
        return False
    aside = path.with_name(f"{path.name}.damaged-chunk-{chunk_id}")
    aside.write_bytes(blob)
    gaps.add(db, [Gap(first, 0, last, finished_ms)])
    db.execute("DELETE FROM chunk WHERE id = ?", (chunk_id,))
    log.error(
        "history %s: chunk %d is damaged and set aside as %s; what log entries %d to %d finished "
        "is lacking until a peer gives it",
        path, chunk_id, aside.name, first, last,
    )  # fmt: skip
    return True


class Unrepaired:
    """Tells once of damage that stays."""

    def __init__(self) -> None:
        self._told = ""

    def tell(self, error: HistoryError) -> None:
        if self._told != str(error):
            self._told = str(error)
            log.error("%s: stop the node, move the file away and start the node", error)
