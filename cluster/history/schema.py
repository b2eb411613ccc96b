"""The tables of the history's file, what earlier releases lack of them, and how it is opened.

A file that is broken is told from one that cannot be used for another reason: the first can be set
aside and fetched anew, the second is for the operator to decide.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.history import gaps, occasions
from cluster.history.record import HistoryDamagedError, HistoryError

SCHEMA_VERSION = 3  # 2: runs and events of schedules; 3: chunks by columns
APPLICATION_ID = 0x51754F48  # "QuOH"
CHECKED_BYTES_MAX = 64 << 20  # a larger file takes seconds to read; damage shows when it is used

# Of a chunk that an earlier release wrote, `first_index` and what follows is unknown (NULL).
# `complete_to`: all that log entries up to there finished is in the file, but for gaps; NULL in a
# file of an earlier release. `index_known` is `index_last` unless such a release has written since.
# `pruned_ms`: what finished before may be gone. `chunk_last`: ids are never given twice, or a
# reader's cache would take one chunk for another.
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
  form INTEGER NOT NULL DEFAULT 1,
  first_index INTEGER,
  last_index INTEGER,
  jobs INTEGER,
  sum INTEGER
);
CREATE INDEX IF NOT EXISTS chunk_band ON chunk (band);
CREATE INDEX IF NOT EXISTS chunk_finished ON chunk (finished_ms);
CREATE INDEX IF NOT EXISTS chunk_place ON chunk (last_index, first_index, finished_ms);
CREATE TABLE IF NOT EXISTS progress (
  id INTEGER PRIMARY KEY,
  index_last INTEGER NOT NULL,
  complete_to INTEGER,
  index_known INTEGER NOT NULL DEFAULT 0,
  span_max INTEGER NOT NULL DEFAULT 0,
  pruned_ms INTEGER NOT NULL DEFAULT 0,
  chunk_last INTEGER NOT NULL DEFAULT 0
);
"""

# What a file of an earlier release lacks, by the release that brought it.
UPGRADES = {3: "ALTER TABLE chunk ADD COLUMN form INTEGER NOT NULL DEFAULT 1"}

# What came later and earlier releases do not mind: a node can go back to them, so the format keeps
# its number.
ADDED_COLUMN = "sum"
ADDITIONS = """
ALTER TABLE chunk ADD COLUMN first_index INTEGER;
ALTER TABLE chunk ADD COLUMN last_index INTEGER;
ALTER TABLE chunk ADD COLUMN jobs INTEGER;
ALTER TABLE chunk ADD COLUMN sum INTEGER;
ALTER TABLE progress ADD COLUMN complete_to INTEGER;
ALTER TABLE progress ADD COLUMN index_known INTEGER NOT NULL DEFAULT 0;
ALTER TABLE progress ADD COLUMN span_max INTEGER NOT NULL DEFAULT 0;
ALTER TABLE progress ADD COLUMN pruned_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE progress ADD COLUMN chunk_last INTEGER NOT NULL DEFAULT 0
"""

FIRST_ROW = "INSERT OR IGNORE INTO progress (id, index_last, complete_to) VALUES (1, 0, 0);"


def connect(path: Path) -> sqlite3.Connection:
    """Opens the file, or makes it. HistoryDamagedError when it is broken, else HistoryError."""
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
        steps = _steps(db, version) if tables else []
        if steps or not tables:
            _make(db, steps)
    except sqlite3.Error as error:
        db.close()
        raise failure(path, "opened", error) from error
    except HistoryError:
        db.close()
        raise
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of what is done within, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def check(db: sqlite3.Connection, path: Path) -> None:
    """Raises HistoryDamagedError if the file is broken; reads all of it unless it is large."""
    try:
        db.execute(
            "SELECT index_last, complete_to, pruned_ms FROM progress WHERE id = 1"
        ).fetchone()
        if path.stat().st_size > CHECKED_BYTES_MAX:
            return
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise failure(path, "read", error) from error
    except OSError as error:
        raise HistoryError(f"history {path} cannot be read ({error}): check its disk") from error
    if verdict != "ok":
        raise HistoryDamagedError(f"history {path} is damaged ({verdict:.200})")


def set_aside(path: Path, now_ms: int) -> Path:
    """Gives a damaged file another name, so that a new one can take its place."""
    aside = path.with_name(f"{path.name}.damaged-{now_ms}")
    try:
        for suffix in ("-wal", "-shm", ""):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
    except OSError as error:
        raise HistoryError(f"history {path} is damaged and cannot be moved: {error}") from error
    return aside


def failure(path: Path, verb: str, error: Exception) -> HistoryError:
    """What an error of SQLite or of a chunk's content means, with the fix."""
    kind = HistoryDamagedError if is_damage(error) else HistoryError
    return kind(f"history {path} cannot be {verb} ({error}): {_fix(error)}")


def is_damage(error: Exception) -> bool:
    """Not the disk's rights or room, not another process: the content is wrong."""
    if isinstance(error, sqlite3.Error):
        return type(error) is sqlite3.DatabaseError  # its subclasses mean something else each
    return True


def _steps(db: sqlite3.Connection, version: int) -> list[str]:
    """What a file lacks since that version."""
    steps = [UPGRADES[later] for later in sorted(UPGRADES) if later > version]
    columns = {name for _, name, *_ in db.execute("PRAGMA table_info(chunk)")}
    return steps if ADDED_COLUMN in columns else [*steps, ADDITIONS]


def _make(db: sqlite3.Connection, steps: list[str]) -> None:
    """Makes what is missing, all or nothing."""
    db.executescript(
        f"BEGIN IMMEDIATE; {';'.join([*steps, ''])} {SCHEMA} {gaps.SCHEMA} {occasions.SCHEMA}"
        f"{FIRST_ROW} PRAGMA application_id = {APPLICATION_ID};"
        f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
    )


def _fix(error: Exception) -> str:
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return "free space on its disk or check the disk"
    if "locked" in text or "busy" in text:
        return "another process uses it, end that one"
    if isinstance(error, sqlite3.OperationalError):
        return "check the folder, its rights and its disk"
    return "it is damaged; a node that starts without it asks its peers for what was in it"
