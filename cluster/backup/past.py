"""The history inside a backup: finished jobs in chunks of MessagePack, newest first.

Written from what the history answers, not from its file, so that a backup outlives the file's form.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from cluster.clock import SystemClock
from cluster.history import History, gaps
from cluster.history.ended import finished_of
from cluster.history.gaps import Gap
from cluster.history.record import FinishedJob, HistoryError
from cluster.history.schema import failure, transaction
from cluster.history.store import Store
from cluster.machine.state import State

from .bundle import BackupError
from .manifest import Manifest

ROWS_PER_CHUNK = 500
CHUNK_BYTES_MAX = 1 << 30
ROOM_ROWS = 50_000  # between two waits for the disk
LENGTH = struct.Struct("<I")

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[FinishedJob])


async def write_history(history: History, index: int, file: BinaryIO) -> int:
    """All jobs that log entries up to `index` finished; returns their number.

    Raises BackupError. The file is left at its beginning."""
    count, before_id = 0, None
    while True:
        try:
            page = await history.list(before_id=before_id, limit=ROWS_PER_CHUNK)
        except HistoryError as error:
            raise BackupError(str(error)) from error
        rows = [row for row in page if row.index <= index]
        if rows:
            data = _encode(rows)
            file.write(LENGTH.pack(len(data)) + data)
            count += len(rows)
        if len(page) < ROWS_PER_CHUNK:
            break
        before_id = page[-1].job_id
    file.flush()
    file.seek(0)
    return count


def read_history(file: BinaryIO) -> Iterator[list[FinishedJob]]:
    """BackupError for anything but what `write_history` wrote."""
    while head := file.read(LENGTH.size):
        if len(head) < LENGTH.size:
            raise BackupError("the history in the backup is cut off")
        size = LENGTH.unpack(head)[0]
        data = file.read(min(size, CHUNK_BYTES_MAX))
        try:
            yield _decoder.decode(data)
        except msgspec.DecodeError as error:
            raise BackupError(f"the history in the backup is unreadable: {error}") from error


async def restore_history(file: BinaryIO, path: Path, state: State, manifest: Manifest) -> int:
    """Into a new history file. Jobs that live in `state` are not history; returns the rows' number.

    What the backup lacks, the file says that it lacks. Raises BackupError or HistoryError."""
    live, next_id = state.tables.jobs, state.next_job_id
    history = History.open(path, 0, SystemClock())
    count, since_wait, newest = 0, 0, 0
    try:
        for chunk in read_history(file):
            rows = [row for row in chunk if row.job_id not in live and row.job_id < next_id]
            for row in sorted(rows, key=lambda row: row.index):
                history.add(row.index, [finished_of(row)])
                newest = max(newest, row.index)
            count += len(rows)
            since_wait += len(rows)
            if since_wait >= ROOM_ROWS:
                since_wait = 0
                await history.flushed(newest)
        await history.flushed(max(newest, manifest.index))
    finally:
        await history.close()
    if manifest.history_lacks:
        _note_gaps(path, [Gap(a, 0, b, manifest.created_ms) for a, b in manifest.history_lacks])
    return count


def _note_gaps(path: Path, found: list[Gap]) -> None:
    store = Store(path)
    try:
        with transaction(store.db):
            gaps.add(store.db, found)
    except sqlite3.Error as error:
        raise failure(path, "written", error) from error
    finally:
        store.close()
