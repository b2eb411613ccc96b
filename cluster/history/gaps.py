"""What a history lacks: stretches of the log whose finished jobs never came by here.

A node that starts from another one's snapshot never applies the entries before it. The stretch is
recorded in the file together with the progress beyond it, and shrinks in the transactions that
bring its rows. A place in the log is an entry and, within an entry, the id of a job: rows are
handed on in this order, so that any peer can go on where another one stopped.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SCHEMA = """
CREATE TABLE IF NOT EXISTS gap (
  first_index INTEGER PRIMARY KEY,
  after_id INTEGER NOT NULL,
  last_index INTEGER NOT NULL,
  until_ms INTEGER NOT NULL
);
"""


class Place(NamedTuple):
    """Behind the job `after_id` of what the log entry finished; 0: before the first."""

    entry: int
    after_id: int = 0


class Gap(NamedTuple):
    """Everything behind `(first_index, after_id)` up to the entry `last_index`, all of it finished
    at `until_ms` or before."""

    first_index: int
    after_id: int
    last_index: int
    until_ms: int

    @property
    def start(self) -> Place:
        return Place(self.first_index, self.after_id)

    @property
    def entries(self) -> tuple[int, int]:
        """The first and the last entry of which something is lacking."""
        return self.first_index, self.last_index


def subtract(gap: Gap, start: Place, end: Place) -> list[Gap]:
    """What is left of a gap when what lies behind `start`, up to `end`, is there."""
    left = []
    if start > gap.start:
        left.append(Gap(gap.first_index, gap.after_id, start.entry - 1, gap.until_ms))
    if end.entry <= gap.last_index:
        left.append(Gap(*max(end, gap.start), gap.last_index, gap.until_ms))
    return left


def within(gap: Gap, stretches: Iterable[tuple[int, int]]) -> Iterator[tuple[Place, int]]:
    """The parts of a gap that lie in the stretches (first, last), as (start, last index)."""
    for first, last in stretches:
        start = gap.start if first <= gap.first_index else Place(first)
        end = min(last, gap.last_index)
        if start.entry <= end:
            yield start, end


def between(complete_to: int, lacking: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The stretches (first, last) without what is lacking (first, last), as whole entries."""
    first = 1
    for begin, end in sorted(lacking):
        if first < begin:
            yield first, begin - 1
        first = max(first, end + 1)
    if first <= complete_to:
        yield first, complete_to


def read(db: sqlite3.Connection) -> list[Gap]:
    """All gaps, in the order of the log."""
    found = db.execute(
        "SELECT first_index, after_id, last_index, until_ms FROM gap ORDER BY first_index"
    )
    return [Gap(*row) for row in found]


def replace(db: sqlite3.Connection, old: Gap, new: Iterable[Gap]) -> bool:
    """Within the open transaction; False, and nothing is changed, if the old one is not there."""
    found = db.execute(
        "DELETE FROM gap WHERE first_index = ? AND after_id = ? AND last_index = ?", old[:3]
    )
    if not found.rowcount:
        return False
    add(db, new)
    return True


def add(db: sqlite3.Connection, new: Iterable[Gap]) -> None:
    """Within the open transaction."""
    found = merged([*read(db), *new])
    db.execute("DELETE FROM gap")
    db.executemany("INSERT INTO gap VALUES (?, ?, ?, ?)", found)


def merged(gaps: Iterable[Gap]) -> list[Gap]:
    """The same gaps in the order of the log, none within another one."""
    found: list[Gap] = []
    for gap in sorted(gaps):
        if not found or gap.first_index > found[-1].last_index:
            found.append(gap)
            continue
        found[-1] = found[-1]._replace(
            last_index=max(found[-1].last_index, gap.last_index),
            until_ms=max(found[-1].until_ms, gap.until_ms),
        )
    return found


def total_entries(gaps: Iterable[Gap]) -> int:
    """How many log entries lie in the gaps."""
    return sum(gap.last_index - gap.first_index + 1 for gap in gaps)
