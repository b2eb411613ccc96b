"""Finished jobs for the tests of the history: what shall be read, and what the machine hands over
for it."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cluster.history import FinishedJob
from cluster.history.ended import Ended, spec_bytes
from cluster.history.inserts import BAND_BITS
from cluster.history.store import Store
from cluster.machine import lifecycle
from cluster.machine.effects import Finished
from cluster.machine.model import Attempt, JobSpec
from cluster.machine.tables import Job, JobExtra, QueueRow, SpecRow

STATUSES = ("completed", "failed", "cancelled", "skipped")  # in the order of their bits
STATE = {name: state for state, name in lifecycle.STATUS.items()}

_kinds: dict[JobSpec, SpecRow] = {}


def job(job_id: int, index: int = 1, status: str = "completed", **fields: object) -> FinishedJob:
    """A row as it is read."""
    values: dict[str, object] = {"name": "send", "payload": b"{}"} | fields
    row = FinishedJob(job_id=job_id, index=index, status=status, **values)  # type: ignore[arg-type]
    spec = JobSpec(row.name, row.queue, tags=row.tags)
    return FinishedJob(**{**as_dict(row), "spec": spec_bytes(spec)})


def as_dict(row: FinishedJob) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def finished(row: FinishedJob) -> Finished:
    """What the machine says when this job ends."""
    spec = JobSpec(row.name, row.queue, tags=row.tags)
    kind = _kinds.setdefault(spec, SpecRow(spec, QueueRow(row.queue), (row.queue, row.name)))
    attempts = [
        Attempt(
            each.attempt, each.worker_id, each.started_ms, each.ended_ms,
            each.outcome, each.error_type, each.error_message, each.log,
        )
        for each in row.attempts
    ]  # fmt: skip
    extra = JobExtra(
        row.unique_key, 0, row.schedule_id, row.nominal_ms, row.expires_at_ms, row.deadline_ms,
        attempts or None,
    )  # fmt: skip
    last = Job(
        row.job_id, kind, row.payload, STATE[row.status], row.created_ms, row.run_at_ms,
        row.attempt, row.failures, row.worker_id, row.started_ms,
        extra=None if extra == JobExtra() else extra,
    )  # fmt: skip
    return Finished(last, row.finished_ms, row.output, row.error_type, row.error_message, row.log)


def lot(rows: Sequence[FinishedJob]) -> list[Finished]:
    """What one log entry finished."""
    return [finished(row) for row in rows]


def ended(rows: Sequence[FinishedJob]) -> Ended:
    """The same rows on their way into the file."""
    return Ended.of([(row.index, [finished(row)]) for row in rows])


def make_release_3(path: Path) -> None:
    """Takes from a closed file what it would not have if that release had written it."""
    db = sqlite3.connect(path)
    db.executescript("DROP INDEX chunk_place; DROP TABLE gap")
    for column in ("first_index", "last_index", "jobs", "sum"):
        db.execute(f"ALTER TABLE chunk DROP COLUMN {column}")
    for column in ("complete_to", "index_known", "span_max", "pruned_ms", "chunk_last"):
        db.execute(f"ALTER TABLE progress DROP COLUMN {column}")
    db.commit()
    db.close()


def write_as_release_2(path: Path, rows: Sequence[FinishedJob]) -> None:
    """A file of the release before: rows one after the other, without the column `form`."""
    Store(path).close()
    make_release_3(path)
    db = sqlite3.connect(path)
    db.execute("ALTER TABLE chunk DROP COLUMN form")
    db.execute("PRAGMA user_version = 2")
    for row in rows:
        labels = [f"q={row.queue}", f"n={row.name}", *(f"t={tag}" for tag in row.tags)]
        db.execute(
            "INSERT INTO chunk (band, first_id, last_id, finished_ms, statuses, labels, rows)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                row.job_id >> BAND_BITS,
                row.job_id,
                row.job_id,
                row.finished_ms,
                1 << STATUSES.index(row.status),
                "\n".join(["", *labels, ""]),
                zlib.compress(msgspec.msgpack.encode([row])),
            ),
        )
        if row.schedule_id:
            db.execute(
                "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?)",
                (row.job_id, row.schedule_id, row.nominal_ms, row.finished_ms),
            )
    db.commit()
    db.close()
