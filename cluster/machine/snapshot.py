"""State to bytes and back. Runs in a forked child when writing, so it only reads.

Rows keep their order, counts and timers are rebuilt from rows, so a restored replica behaves like
one that replayed the log. What the records look like stands in `snapshot_format`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import islice
from typing import Any

import msgspec

from cluster.machine.levels import BLOCKS, HIGHEST_LEVEL
from cluster.machine.snapshot_blocks import block_entry
from cluster.machine.snapshot_format import (
    BODIES,
    FORMAT,
    SECTIONS,
    Column,
    DeadColumns,
    ExtraRow,
    Header,
    JobColumns,
    RequestEntry,
    UniqueEntry,
    WorkerEntry,
)
from cluster.machine.snapshot_load import Loader
from cluster.machine.snapshot_schedules import calendar_entry, schedule_entry, weight
from cluster.machine.state import State
from cluster.machine.tables import Block, DeadJob, Job, JobExtra

ROWS_PER_RECORD = 1_000
# A record is built and read as a whole, by a child or a peer that is short of memory already.
RECORD_BYTES_TARGET = 4 << 20
RECORD_BYTES_MAX = 1 << 30
_LENGTH = struct.Struct("<I")
_encode = msgspec.msgpack.Encoder().encode
_envelope = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])
_bodies: dict[str, msgspec.msgpack.Decoder[Any]] = {
    section: msgspec.msgpack.Decoder(BODIES[section]) for section in SECTIONS
}


def dump(state: State, level: int = HIGHEST_LEVEL) -> Iterator[bytes]:
    """Yield the encoded state, one record at a time, for releases that know `level`."""
    tables = state.tables
    specs = {id(row): position for position, row in enumerate(tables.specs.values())}
    yield _record("header", _header(state))
    yield from _lists("queues", tables.queues)
    yield from _lists("specs", (row.spec for row in tables.specs.values()))
    rows: list[tuple[bool, Iterable[Job]]] = [
        (False, tables.jobs.rows.values()),
        (True, tables.jobs.apart.values()),
    ]
    if level >= BLOCKS:
        for some in _chunks(tables.jobs.blocks.values(), _block_weight):
            yield _record("blocks", [block_entry(block, specs[id(block.kind)]) for block in some])
    else:
        rows.append((True, _rows_of_blocks(tables.jobs.blocks.values())))
    for apart, some_rows in rows:
        for jobs in _chunks(some_rows, _job_weight):
            yield _record("jobs", _job_columns(jobs, [specs[id(job.kind)] for job in jobs], apart))
    for dead in _chunks(tables.dead.values(), _dead_weight):
        yield _record("dead", _dead_columns(dead))
    yield from _lists(
        "workers",
        (WorkerEntry(w.id, w.spec, w.registered_ms, list(w.running), w.draining)
         for w in tables.workers.values()),
    )  # fmt: skip
    for calendar in tables.calendars.values():
        yield _record("calendars", [calendar_entry(calendar)])
    for schedules in _chunks(tables.schedules.values(), weight):
        yield _record("schedules", [schedule_entry(row) for row in schedules])
    yield from _lists(
        "requests",
        (RequestEntry(k, r.fingerprint, r.first, r.count, r.ids, r.expires_ms)
         for k, r in tables.requests.items()),
    )  # fmt: skip
    yield from _lists(
        "uniques", (UniqueEntry(k, u.job_id, u.expires_ms) for k, u in tables.uniques.items())
    )
    yield _record("end", FORMAT)


def _rows_of_blocks(blocks: Iterable[Block]) -> Iterator[Job]:
    """Their jobs as rows with timers of their own: all that older releases know."""
    for block in blocks:
        for job_id in block.ids():
            row = copy(block.look(job_id))
            row.timer = block.timer
            yield row


def _record(section: str, body: object) -> bytes:
    encoded = _encode((section, body))
    return _LENGTH.pack(len(encoded)) + encoded


def _lists(section: str, rows: Iterable[Any]) -> Iterator[bytes]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, ROWS_PER_RECORD)):
        yield _record(section, chunk)


def _chunks(rows: Iterable[Any], weight: Any) -> Iterator[list[Any]]:
    """Rows for one record each: a fixed number, or fewer when they are large."""
    iterator = iter(rows)
    while chunk := list(islice(iterator, ROWS_PER_RECORD)):
        yield from _halved(chunk, weight)


def _halved(chunk: list[Any], weight: Any) -> Iterator[list[Any]]:
    if len(chunk) == 1 or weight(chunk) <= RECORD_BYTES_TARGET:
        yield chunk
        return
    middle = len(chunk) // 2
    yield from _halved(chunk[:middle], weight)
    yield from _halved(chunk[middle:], weight)


def _block_weight(some: Sequence[Block]) -> int:
    return sum([len(block.payloads) + 5 * len(block.ends) for block in some])


def _job_weight(jobs: Sequence[Job]) -> int:
    return sum([len(job.payload) for job in jobs]) + sum(
        len(attempt.log) + len(attempt.error_message)
        for job in jobs
        if job.extra is not None and job.extra.attempts is not None
        for attempt in job.extra.attempts
    )


def _dead_weight(dead: Sequence[DeadJob]) -> int:
    texts = sum(len(d.log) + len(d.error_message) for d in dead)
    return texts + _job_weight([d.job for d in dead])


def _header(state: State) -> Header:
    return Header(
        FORMAT, state.now_ms, state.epoch, state.digest, state.next_job_id,
        state.next_worker_id, state.next_schedule_id, state.totals, state.releases, state.missed,
        state.level,
    )  # fmt: skip


def _column(values: list[int]) -> Column:
    first = values[0]
    return first if values.count(first) == len(values) else values


def _job_columns(jobs: Sequence[Job], specs: list[int], apart: bool = False) -> JobColumns:
    extra_at = [position for position, job in enumerate(jobs) if job.extra is not None]
    return JobColumns(
        [job.id for job in jobs],
        _column(specs),
        [job.payload for job in jobs],
        _column([job.state for job in jobs]),
        _column([job.created_ms for job in jobs]),
        _column([job.run_at_ms for job in jobs]),
        _column([job.attempt for job in jobs]),
        _column([job.failures for job in jobs]),
        _column([job.worker_id for job in jobs]),
        _column([job.started_ms for job in jobs]),
        _column([0 if job.timer is None else job.timer.due_ms for job in jobs]),
        extra_at,
        [_extra(extra) for at in extra_at if (extra := jobs[at].extra) is not None],
        apart,
    )


def _extra(extra: JobExtra) -> ExtraRow:
    return ExtraRow(
        extra.unique_key, extra.unique_ttl_ms, extra.schedule_id, extra.nominal_ms,
        extra.expires_at_ms, extra.deadline_ms, extra.attempts,
        extra.expire_timer is not None, extra.deadline_timer is not None, extra.stop_by_ms,
    )  # fmt: skip


def _dead_columns(dead: Sequence[DeadJob]) -> DeadColumns:
    jobs = [d.job for d in dead]
    specs = {spec: n for n, spec in enumerate(dict.fromkeys(job.kind.spec for job in jobs))}
    return DeadColumns(
        list(specs),
        _job_columns(jobs, [specs[job.kind.spec] for job in jobs]),
        [d.finished_ms for d in dead],
        [d.error_type for d in dead],
        [d.error_message for d in dead],
        [d.log for d in dead],
    )


def load(chunks: Iterable[bytes], highest_level: int = HIGHEST_LEVEL) -> State:
    """Rebuild a state. Raises ValueError, naming the section, for anything malformed, and for one
    of a higher feature level."""
    loader = Loader(highest_level)
    for section, body in _sections(chunks):
        try:
            loader.take(section, body)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise ValueError(f"snapshot section {section!r} is malformed: {error}") from error
    return loader.finish()


def _sections(chunks: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    for record in _whole_records(chunks):
        section = "?"
        try:
            section, raw = _envelope.decode(record)
            decoder = _bodies.get(section)
            if decoder is None:
                raise ValueError("unknown section, written by a newer release")
            body = decoder.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ValueError(f"snapshot section {section!r} is malformed: {error}") from error
        yield section, body


def _whole_records(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Records out of chunks of any sizes."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > RECORD_BYTES_MAX:
                raise ValueError("snapshot record is longer than any that is written")
            body, end = start + _LENGTH.size, start + _LENGTH.size + length
            if len(buffer) < end:
                break
            yield bytes(memoryview(buffer)[body:end])
            start = end
        del buffer[:start]
    if buffer:
        raise ValueError("snapshot ends inside a record")
