"""What the history knows of schedules: which finished jobs were runs of which occurrence, and what
happened besides (left out, paused, changed).

An index beside the chunks: a row per run, so that one occurrence of a schedule is found without
reading the bands in between, and a row per event. Jobs of no schedule cost nothing here. Events are
named by their place in the log, so that a replay adds none twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from cluster.history.record import PastEvent

SEQ_BITS = 20  # events of one log entry; an entry has a few thousand commands at most
EVENTS_HANDED_MAX = 2_000  # in one piece, unless a single entry has more
EVENTS_PRUNED_MAX = 50_000  # once a minute: hundreds a second, for schedules that skip a lot

SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
  job_id INTEGER PRIMARY KEY,
  schedule_id TEXT NOT NULL,
  nominal_ms INTEGER NOT NULL,
  finished_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS run_schedule ON run (schedule_id);
CREATE INDEX IF NOT EXISTS run_nominal ON run (schedule_id, nominal_ms);
CREATE TABLE IF NOT EXISTS schedule_event (
  seq INTEGER PRIMARY KEY,
  schedule_id TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  event BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS schedule_event_schedule ON schedule_event (schedule_id);
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(PastEvent).decode


def write(
    db: sqlite3.Connection, runs: Sequence[tuple[int, str, int, int]], events: Iterable[PastEvent]
) -> None:
    """Adds to the open transaction; `runs` as the table's columns."""
    if runs:
        db.executemany("INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?)", runs)
    told = [(each.seq, each.schedule_id, each.at_ms, _encode(each)) for each in events]
    if told:
        db.executemany("INSERT OR IGNORE INTO schedule_event VALUES (?, ?, ?, ?)", told)


def run_ids(
    db: sqlite3.Connection, schedule_id: str, nominal_ms: int | None, before_id: int, limit: int
) -> list[int]:
    """Ids of finished runs below `before_id`, newest first."""
    sql, arguments = "SELECT job_id FROM run WHERE schedule_id = ?", [schedule_id]
    numbers = [before_id, limit]
    if nominal_ms is not None:
        sql += " AND nominal_ms = ?"
        numbers.insert(0, nominal_ms)
    sql += " AND job_id < ? ORDER BY job_id DESC LIMIT ?"
    return [job_id for (job_id,) in db.execute(sql, (*arguments, *numbers))]


def events(
    db: sqlite3.Connection, schedule_id: str, before_seq: int, limit: int
) -> list[PastEvent]:
    """Events of one schedule with smaller numbers, newest first."""
    found = db.execute(
        "SELECT event FROM schedule_event WHERE schedule_id = ? AND seq < ?"
        " ORDER BY seq DESC LIMIT ?",
        (schedule_id, before_seq, limit),
    )
    return [_decode(event) for (event,) in found]


def index_of(event: PastEvent) -> int:
    """The log entry that it comes from."""
    return event.seq >> SEQ_BITS


def events_between(
    db: sqlite3.Connection, first_index: int, last_index: int, since_ms: int
) -> tuple[int, list[PastEvent]]:
    """All events of log entries from the first on, and the entry up to which that is; it is the
    last one unless there are too many."""
    sql = "SELECT event FROM schedule_event WHERE seq >= ? AND seq < ? AND at_ms >= ? ORDER BY seq"
    low, high = first_index << SEQ_BITS, (last_index + 1) << SEQ_BITS
    found = db.execute(f"{sql} LIMIT ?", (low, high, since_ms, EVENTS_HANDED_MAX + 1)).fetchall()
    events = [_decode(event) for (event,) in found]
    if len(events) <= EVENTS_HANDED_MAX:
        return last_index, events
    reach = max(index_of(events[0]), index_of(events[-1]) - 1)
    found = db.execute(sql, (low, (reach + 1) << SEQ_BITS, since_ms)).fetchall()
    return reach, [_decode(event) for (event,) in found]


def prune_runs(
    db: sqlite3.Connection, ranges: Iterable[tuple[int, int]], finished_before_ms: int
) -> None:
    """Forgets old runs among ids whose chunks go."""
    db.executemany(
        "DELETE FROM run WHERE job_id BETWEEN ? AND ? AND finished_ms < ?",
        [(first_id, last_id, finished_before_ms) for first_id, last_id in ranges],
    )


def prune_events(db: sqlite3.Connection, before_ms: int) -> None:
    """Forgets some of the oldest events, if they are older than that."""
    db.execute(
        "DELETE FROM schedule_event WHERE at_ms < ? AND seq IN"
        " (SELECT seq FROM schedule_event ORDER BY seq LIMIT ?)",
        (before_ms, EVENTS_PRUNED_MAX),
    )
