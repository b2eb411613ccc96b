"""State to bytes and back. Runs in a forked child when writing, so it only reads.

A stream of length-prefixed MessagePack records `[section, rows]`. Rows keep their order, counts and
timers are rebuilt from rows, so a restored replica behaves like one that replayed the log.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from cluster.machine import lifecycle
from cluster.machine.model import Attempt, JobSpec, WorkerSpec
from cluster.machine.state import State
from cluster.machine.tables import (
    DeadJob,
    Job,
    JobExtra,
    KeyRecord,
    QueueRow,
    ScheduleRow,
    SpecRow,
    Totals,
    UniqueRecord,
    WorkerRow,
)
from cluster.machine.timers import DEADLINE, DUE, EXPIRE, OVERDUE, SCHEDULE, Timers
from cluster.machine.unique import REQUEST, UNIQUE

FORMAT = 1
ROWS_PER_RECORD = 1_000
RECORD_BYTES_MAX = 1 << 31
_LENGTH = struct.Struct("<I")
_encode = msgspec.msgpack.Encoder().encode


def dump(state: State) -> Iterator[bytes]:
    """Yield the encoded state, one record at a time."""
    tables = state.tables
    specs = {id(row): position for position, row in enumerate(tables.specs.values())}
    dead_specs = [dead.job.kind.spec for dead in tables.dead.values()]
    yield from _records("header", [_header(state)])
    yield from _records("queues", tables.queues)
    yield from _records("specs", (row.spec for row in tables.specs.values()))
    yield from _records("jobs", (_dump_job(j, specs[id(j.kind)]) for j in tables.jobs.values()))
    yield from _records("dead_specs", dead_specs)
    yield from _records(
        "dead",
        (
            (_dump_job(d.job, n), d.finished_ms, d.error_type, d.error_message, d.log)
            for n, d in enumerate(tables.dead.values())
        ),
    )
    yield from _records(
        "workers",
        ((w.id, w.spec, w.registered_ms, list(w.running), w.draining)
         for w in tables.workers.values()),
    )  # fmt: skip
    yield from _records("schedules", (_dump_schedule(row) for row in tables.schedules.values()))
    yield from _records(
        "requests",
        ((k, r.fingerprint, r.first, r.count, r.ids, r.expires_ms)
         for k, r in tables.requests.items()),
    )  # fmt: skip
    yield from _records(
        "uniques", ((k, u.job_id, u.expires_ms) for k, u in tables.uniques.items())
    )
    yield from _records("end", [FORMAT])


def _records(section: str, rows: Iterable[Any]) -> Iterator[bytes]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, ROWS_PER_RECORD)):
        body = _encode((section, chunk))
        yield _LENGTH.pack(len(body)) + body


def _header(state: State) -> tuple[Any, ...]:
    return (
        FORMAT,
        state.now_ms,
        state.epoch,
        state.digest,
        state.next_job_id,
        state.next_worker_id,
        state.next_schedule_id,
        msgspec.structs.asdict(state.totals),
    )


def _dump_job(job: Job, spec: int) -> tuple[Any, ...]:
    extra = job.extra
    return (
        job.id,
        spec,
        job.payload,
        job.state,
        job.created_ms,
        job.run_at_ms,
        job.attempt,
        job.failures,
        job.worker_id,
        job.started_ms,
        job.timer.due_ms if job.timer is not None else 0,
        None if extra is None else _dump_extra(extra),
    )


def _dump_extra(extra: JobExtra) -> tuple[Any, ...]:
    return (
        extra.unique_key,
        extra.unique_ttl_ms,
        extra.schedule_id,
        extra.nominal_ms,
        extra.expires_at_ms,
        extra.deadline_ms,
        extra.attempts,
        extra.expire_timer is not None,
        extra.deadline_timer is not None,
    )


def _dump_schedule(row: ScheduleRow) -> tuple[Any, ...]:
    return (
        row.id, row.spec, row.payload, row.cron, row.every_ms, row.next_fire_ms, row.created_ms,
        row.queue_timeout_ms, row.total_timeout_ms, row.paused, row.note, row.last_fire_ms,
        row.last_job_id, row.run_count, row.skipped_count, row.timer is not None,
    )  # fmt: skip


def load(chunks: Iterable[bytes]) -> State:
    """Rebuild a state. Raises ValueError, naming the section, for anything malformed."""
    loader = _Loader()
    for section, rows in _sections(chunks):
        try:
            loader.take(section, rows)
        except (TypeError, KeyError, IndexError, AttributeError, msgspec.MsgspecError) as error:
            raise ValueError(f"snapshot section {section!r} is malformed: {error}") from error
    if not loader.ended:
        raise ValueError("snapshot ends early")
    loader.rebuild_timers()
    return loader.state


def _sections(chunks: Iterable[bytes]) -> Iterator[tuple[str, list[Any]]]:
    buffer = bytearray()
    start = 0
    for chunk in chunks:
        buffer += chunk
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            end = start + _LENGTH.size + length
            if length > RECORD_BYTES_MAX:
                raise ValueError("snapshot record is longer than any that is written")
            if len(buffer) < end:
                break
            try:
                section, rows = msgspec.msgpack.decode(
                    memoryview(buffer)[start + _LENGTH.size : end]
                )
            except (msgspec.MsgspecError, ValueError, TypeError) as error:
                raise ValueError(f"snapshot record does not decode: {error}") from error
            start = end
            yield section, rows
        del buffer[:start]
        start = 0
    if buffer:
        raise ValueError("snapshot ends inside a record")


class _Loader:
    """Fills a new state section by section; timers come last, when all rows stand."""

    def __init__(self) -> None:
        self.state = State()
        self.ended = False
        self._specs: list[SpecRow] = []
        self._dead_specs: list[JobSpec] = []
        self._timers: dict[tuple[int, int], list[Any]] = {}

    def take(self, section: str, rows: list[Any]) -> None:
        add = getattr(self, f"_add_{section}", None)
        if add is None:
            raise KeyError("unknown section, written by a newer release")
        for row in rows:
            add(row)

    def _add_header(self, row: list[Any]) -> None:
        if row[0] != FORMAT:
            raise ValueError(f"snapshot format {row[0]} is not {FORMAT}")
        state = self.state
        (
            state.now_ms, state.epoch, state.digest, state.next_job_id,
            state.next_worker_id, state.next_schedule_id,
        ) = row[1:7]  # fmt: skip
        state.totals = Totals(**row[7])
        state.timers = Timers(state.now_ms)

    def _add_queues(self, name: str) -> None:
        self.state.tables.queues[name] = QueueRow(name)

    def _add_specs(self, spec: list[Any]) -> None:
        self._specs.append(self.state.tables.intern(msgspec.convert(spec, JobSpec)))

    def _add_jobs(self, row: list[Any]) -> None:
        kind = self._specs[row[1]]
        kind.jobs += 1
        job = self._job(row, kind)
        self.state.tables.jobs[job.id] = job
        self.state.tables.count(job, job.state, +1)
        if row[10]:
            due_kind = OVERDUE if job.state == lifecycle.RUNNING else DUE
            self._wait(due_kind, row[10], job.id)

    def _wait(self, kind: int, due_ms: int, member: Any) -> None:
        self._timers.setdefault((kind, due_ms), []).append(member)

    def _job(self, row: list[Any], kind: SpecRow) -> Job:
        job_id, _, payload, state, created, run_at, attempt, failures, worker, started = row[:10]
        job = Job(
            job_id, kind, payload, state, created, run_at, attempt, failures, worker, started
        )
        if row[11] is not None:
            job.extra = self._extra(row[11])
            if row[11][7]:
                self._wait(EXPIRE, job.extra.expires_at_ms, job.id)
            if row[11][8]:
                self._wait(DEADLINE, job.extra.deadline_ms, job.id)
        return job

    def _extra(self, row: list[Any]) -> JobExtra:
        attempts = row[6]
        if attempts is not None:
            attempts = [msgspec.convert(attempt, Attempt) for attempt in attempts]
        return JobExtra(*row[:6], attempts)

    def _add_dead_specs(self, spec: list[Any]) -> None:
        self._dead_specs.append(msgspec.convert(spec, JobSpec))

    def _add_dead(self, row: list[Any]) -> None:
        spec = self._dead_specs[row[0][1]]
        queue = self.state.tables.queues.setdefault(spec.queue, QueueRow(spec.queue))
        job = self._job(row[0], SpecRow(spec, queue, (spec.queue, spec.name)))
        self.state.tables.dead[job.id] = DeadJob(job, *row[1:])

    def _add_workers(self, row: list[Any]) -> None:
        worker_id, spec, registered_ms, running, draining = row
        self.state.tables.workers[worker_id] = WorkerRow(
            worker_id,
            msgspec.convert(spec, WorkerSpec),
            registered_ms,
            dict.fromkeys(running),
            draining,
        )

    def _add_schedules(self, row: list[Any]) -> None:
        schedule = ScheduleRow(row[0], msgspec.convert(row[1], JobSpec), *row[2:15])
        self.state.tables.schedules[schedule.id] = schedule
        if row[15]:
            self._wait(SCHEDULE, schedule.next_fire_ms, schedule.id)

    def _add_requests(self, row: list[Any]) -> None:
        key, fingerprint, first, count, ids, expires_ms = row
        self.state.tables.requests[key] = KeyRecord(fingerprint, first, count, ids, expires_ms)
        self.state.timers.expire_key(REQUEST + key, expires_ms)

    def _add_uniques(self, row: list[Any]) -> None:
        key, job_id, expires_ms = row
        self.state.tables.uniques[key] = UniqueRecord(job_id, expires_ms)
        if expires_ms:
            self.state.timers.expire_key(UNIQUE + key, expires_ms)

    def _add_end(self, row: int) -> None:
        self.ended = True

    def rebuild_timers(self) -> None:
        tables, timers = self.state.tables, self.state.timers
        for (kind, due_ms), members in sorted(self._timers.items()):
            timer = timers.add(due_ms, kind, members)
            for member in members:
                if kind == SCHEDULE:
                    tables.schedules[member].timer = timer
                elif kind in (DUE, OVERDUE):
                    tables.jobs[member].timer = timer
                else:
                    extra = tables.jobs[member].extra
                    assert extra is not None
                    if kind == EXPIRE:
                        extra.expire_timer = timer
                    else:
                        extra.deadline_timer = timer
