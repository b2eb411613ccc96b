"""The reading half of snapshots: fills a new state section by section.

Timers come last, when all rows stand. Trusts nothing: what does not fit together is refused, as a
replica that differs from the others is worse than a node that does not start.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice, repeat
from operator import lt
from typing import Any

from cluster.machine import lifecycle
from cluster.machine.levels import refusal
from cluster.machine.model import JobSpec
from cluster.machine.snapshot_blocks import block_of, bound
from cluster.machine.snapshot_format import (
    FORMAT,
    SECTIONS,
    BlockEntry,
    CalendarEntry,
    Column,
    DeadColumns,
    ExtraRow,
    Header,
    JobColumns,
    RequestEntry,
    ScheduleEntry,
    UniqueEntry,
    WorkerEntry,
)
from cluster.machine.snapshot_schedules import calendar_row, schedule_row
from cluster.machine.state import State
from cluster.machine.tables import (
    DeadJob,
    Job,
    JobExtra,
    JobTable,
    KeyRecord,
    QueueRow,
    SpecRow,
    UniqueRecord,
    WorkerRow,
)
from cluster.machine.timers import (
    BACKFILL,
    BLOCK_DUE,
    DEADLINE,
    DUE,
    EXPIRE,
    OVERDUE,
    SCHEDULE,
    STOP,
    Timers,
)
from cluster.machine.unique import REQUEST, UNIQUE

LIVE_STATES = frozenset(state for state in lifecycle.STATUS if not lifecycle.is_finished(state))


class Loader:
    """`take` every section in order, then `finish`. Both raise ValueError for what cannot be,
    `take` also KeyError, IndexError, TypeError or OverflowError."""

    def __init__(self, highest_level: int) -> None:
        self._highest_level = highest_level
        self._state = State()
        self._specs: list[SpecRow] = []
        self._waiting: dict[int, dict[int, list[Any]]] = {
            kind: {} for kind in (BLOCK_DUE, DUE, OVERDUE, EXPIRE, DEADLINE, STOP)
        }
        self._section = -1
        self._last_id = self._last_row_id = 0
        self._take: dict[str, Callable[[Any], None]] = {
            "header": self._header,
            "queues": self._queues,
            "specs": self._intern,
            "blocks": self._blocks,
            "jobs": self._jobs,
            "dead": self._dead,
            "workers": self._workers,
            "calendars": self._calendars,
            "schedules": self._schedules,
            "requests": self._requests,
            "uniques": self._uniques,
            "end": self._end,
        }

    def take(self, section: str, body: Any) -> None:
        position = SECTIONS.index(section)
        once = section in {"header", "end"}
        if position < self._section or (once and position == self._section):
            raise ValueError("it is out of order")
        if self._section < 0 and section != "header":
            raise ValueError("the header must come first")
        self._section = position
        self._take[section](body)

    def finish(self) -> State:
        """The state, with its timers."""
        if self._section != len(SECTIONS) - 1:
            raise ValueError("snapshot ends early")
        self._check_jobs()
        self._check_running()
        try:
            self._arm_timers()
        except (KeyError, OverflowError) as error:
            raise ValueError(f"snapshot has a timer for nothing: {error!r}") from error
        return self._state

    def _header(self, header: Header) -> None:
        if header.format != FORMAT:
            raise ValueError(f"format {header.format} is not {FORMAT}")
        if too_new := refusal(header.level, self._highest_level):
            raise ValueError(too_new)
        state = self._state
        state.now_ms, state.epoch, state.digest = header.now_ms, header.epoch, header.digest
        state.next_job_id = header.next_job_id
        state.next_worker_id = header.next_worker_id
        state.next_schedule_id = header.next_schedule_id
        state.totals = header.totals
        state.releases, state.missed = header.releases, header.missed
        state.level = header.level
        state.timers = Timers(state.now_ms)

    def _queues(self, names: list[str]) -> None:
        for name in names:
            self._state.tables.queues[name] = QueueRow(name)

    def _intern(self, specs: list[JobSpec]) -> None:
        self._specs.extend(map(self._state.tables.intern, specs))

    def _blocks(self, entries: list[BlockEntry]) -> None:
        state = self._state
        table = state.tables.jobs
        for entry in entries:
            block = block_of(entry, _at(self._specs, entry.spec), state.next_job_id)
            if entry.id <= self._last_id:
                raise ValueError("it has blocks that overlap")
            self._last_id = block.end - 1
            table.add_block(block)
            block.kind.jobs += block.live
            state.tables.count_kind(block.kind, block.state, block.live)
            bound(block, entry, state.timers)
            if block.state == lifecycle.SCHEDULED:
                self._wait(BLOCK_DUE, block.run_at_ms).append(block.id)

    def _jobs(self, columns: JobColumns) -> None:
        table = self._state.tables.jobs
        expected = len(table) + len(columns.ids)
        kinds = self._kinds(columns.specs, len(columns.ids))
        rows = _rows(columns, kinds)
        self._put(columns, rows)
        if len(table) != expected or max(columns.ids, default=0) >= self._state.next_job_id:
            raise ValueError("it has a job twice or one that was never created")
        self._count(columns)
        self._wait_columns(columns)
        self._add_extras(columns, rows)

    def _kinds(self, specs: Column, count: int) -> Iterable[SpecRow]:
        if isinstance(specs, int):
            return [_at(self._specs, specs)] * count
        if min(specs, default=0) < 0:
            raise ValueError("it has a job without a spec")
        return list(map(self._specs.__getitem__, specs))

    def _put(self, columns: JobColumns, rows: list[Job]) -> None:
        """Ids grow along the table, but for those that stand apart; an older release did not tell
        which."""
        ids, table = columns.ids, self._state.tables.jobs
        if columns.apart:
            table.apart.update(zip(ids, rows, strict=True))
        elif ids[0] > self._last_row_id and all(map(lt, ids, islice(ids, 1, None))):
            self._last_row_id = ids[-1]
            table.rows.update(zip(ids, rows, strict=True))
        else:
            for row in rows:
                if row.id > self._last_row_id:
                    self._last_row_id = row.id
                    table.add(row)
                else:
                    table.put_apart(row)

    def _count(self, columns: JobColumns) -> None:
        """Book the rows in the counts of their specs and queues."""
        count, specs, states = len(columns.ids), columns.specs, columns.states
        moments: Iterable[tuple[tuple[int, int], int]]
        if isinstance(specs, int) and isinstance(states, int):
            moments = [((specs, states), count)]
        else:
            pairs = zip(_spread(specs, count), _spread(states, count), strict=False)
            moments = Counter(pairs).items()
        for (spec, state), jobs in moments:
            if state not in LIVE_STATES:
                raise ValueError(f"it has live jobs in state {state}")
            kind = self._specs[spec]
            kind.jobs += jobs
            self._state.tables.count_kind(kind, state, jobs)

    def _wait_columns(self, columns: JobColumns) -> None:
        timers, states, ids = columns.timers, columns.states, columns.ids
        if isinstance(timers, int) and isinstance(states, int):
            if timers:
                self._wait(_timer_kind(states), timers).extend(ids)
            return
        count = len(ids)
        overdue, due = self._waiting[OVERDUE], self._waiting[DUE]
        for job_id, due_ms, state in zip(
            ids, _spread(timers, count), _spread(states, count), strict=False
        ):
            if due_ms:
                moments = overdue if state == lifecycle.RUNNING else due
                members = moments.get(due_ms)
                if members is None:
                    moments[due_ms] = [job_id]
                else:
                    members.append(job_id)

    def _wait(self, kind: int, due_ms: int) -> list[Any]:
        return self._waiting[kind].setdefault(due_ms, [])

    def _add_extras(self, columns: JobColumns, rows: list[Job]) -> None:
        for position, extra in zip(columns.extra_at, columns.extras, strict=True):
            job = _at(rows, position)
            job.extra = _extra(extra)
            if extra.expire_timer:
                self._wait(EXPIRE, extra.expires_at_ms).append(job.id)
            if extra.deadline_timer:
                self._wait(DEADLINE, extra.deadline_ms).append(job.id)
            if extra.stop_by_ms:
                self._wait(STOP, extra.stop_by_ms).append(job.id)
            if extra.schedule_id:
                self._state.tables.add_run(extra.schedule_id, job.id)

    def _dead(self, columns: DeadColumns) -> None:
        queues: dict[str, QueueRow] = {}  # of their own: a dead letter counts in no queue
        kinds = [
            SpecRow(spec, queues.setdefault(spec.queue, QueueRow(spec.queue)),
                    (spec.queue, spec.name))
            for spec in columns.specs
        ]  # fmt: skip
        count = len(columns.jobs.ids)
        rows = _rows(columns.jobs, [_at(kinds, n) for n in _spread(columns.jobs.specs, count)])
        for position, extra in zip(columns.jobs.extra_at, columns.jobs.extras, strict=True):
            _at(rows, position).extra = _extra(extra)
        dead = map(
            DeadJob, rows, columns.finished_ms, columns.error_types, columns.error_messages,
            columns.logs,
        )  # fmt: skip
        self._state.tables.dead.update(zip(columns.jobs.ids, dead, strict=True))

    def _workers(self, entries: list[WorkerEntry]) -> None:
        for w in entries:
            self._state.tables.add_worker(
                WorkerRow(w.id, w.spec, w.registered_ms, dict.fromkeys(w.running), w.draining)
            )

    def _calendars(self, entries: list[CalendarEntry]) -> None:
        for entry in entries:
            self._state.tables.put_calendar(calendar_row(entry))

    def _schedules(self, entries: list[ScheduleEntry]) -> None:
        state, add = self._state, self._state.timers.add
        for entry in entries:
            row = schedule_row(entry, state.now_ms)
            state.tables.schedules[row.id] = row
            for name in row.plan.calendars:
                state.tables.calendars[name].users[row.id] = None
            if entry.timer:
                row.timer = add(row.next_fire_ms, SCHEDULE, [row.id])
            elif row.next_fire_ms:
                state.due_schedules[row.id] = None
            for backfill in row.waiting.backfills.values() if row.waiting is not None else ():
                if backfill.next_ms:
                    backfill.timer = add(backfill.next_ms, BACKFILL, [row.id])

    def _requests(self, entries: list[RequestEntry]) -> None:
        for r in entries:
            self._state.tables.requests[r.key] = KeyRecord(
                r.fingerprint, r.first, r.count, r.ids, r.expires_ms
            )
            self._state.timers.expire_key(REQUEST + r.key, r.expires_ms)

    def _uniques(self, entries: list[UniqueEntry]) -> None:
        for u in entries:
            self._state.tables.uniques[u.key] = UniqueRecord(u.job_id, u.expires_ms)
            if u.expires_ms:
                self._state.timers.expire_key(UNIQUE + u.key, u.expires_ms)

    def _end(self, version: int) -> None:
        pass

    def _check_running(self) -> None:
        tables = self._state.tables
        held = 0
        for worker in tables.workers.values():
            for job_id in worker.running:
                job = tables.jobs.row(job_id)
                if job is None or job.state != lifecycle.RUNNING or job.worker_id != worker.id:
                    raise ValueError(f"snapshot: worker {worker.id} holds no such job: {job_id}")
                held += 1
        if held != sum(queue.running for queue in tables.queues.values()):
            raise ValueError("snapshot has running jobs that no worker holds")

    def _check_jobs(self) -> None:
        """Nobody is a row twice, or a row and in a block."""
        jobs = self._state.tables.jobs
        if not jobs.rows.keys().isdisjoint(jobs.apart):
            raise ValueError("snapshot has a job twice")
        for ids in (list(jobs.rows), sorted(jobs.apart)):
            for block in jobs.blocks.values():
                inside = ids[bisect_left(ids, block.id) : bisect_left(ids, block.end)]
                if any(map(block.holds, inside)):
                    raise ValueError("snapshot has a row of a job in a block")

    def _arm_timers(self) -> None:
        """In any order: `Timers.take_due` makes the order of firing, insertion does not."""
        tables, add = self._state.tables, self._state.timers.add
        jobs = tables.jobs
        for kind in (DUE, OVERDUE):
            for due_ms, members in self._waiting[kind].items():
                timer = add(due_ms, kind, members)
                for job_id in members:
                    _row(jobs, job_id).timer = timer
        for due_ms, members in self._waiting[BLOCK_DUE].items():
            timer = add(due_ms, BLOCK_DUE, members)
            for block_id in members:
                jobs.blocks[block_id].timer = timer
        for kind, field in (
            (EXPIRE, "expire_timer"), (DEADLINE, "deadline_timer"), (STOP, "stop_timer")
        ):  # fmt: skip
            for due_ms, members in self._waiting[kind].items():
                timer = add(due_ms, kind, members)
                for job_id in members:
                    setattr(_row(jobs, job_id).extra, field, timer)


def _row(jobs: JobTable, job_id: int) -> Job:
    row = jobs.row(job_id)
    if row is None:
        raise KeyError(job_id)
    return row


def _timer_kind(state: int) -> int:
    return OVERDUE if state == lifecycle.RUNNING else DUE


def _at(rows: list[Any], position: int) -> Any:
    """`rows[position]`, but never counted from the end."""
    if position < 0:
        raise IndexError(position)
    return rows[position]


def _spread(column: Column, count: int) -> Iterable[int]:
    return repeat(column, count) if isinstance(column, int) else column


def _shared(column: Column, count: int, seen: dict[int, int]) -> Iterable[int]:
    """The column with one object per value: as many jobs as share a moment share its memory."""
    if isinstance(column, int):
        return repeat(column, count)
    return map(seen.setdefault, column, column)


def _rows(columns: JobColumns, kinds: Iterable[SpecRow]) -> list[Job]:
    count = len(columns.ids)
    for column in (
        columns.specs, columns.payloads, columns.states, columns.created_ms, columns.run_at_ms,
        columns.attempts, columns.failures, columns.workers, columns.started_ms, columns.timers,
    ):  # fmt: skip
        if not isinstance(column, int) and len(column) != count:
            raise ValueError(f"it has columns of {count} and {len(column)} rows")
    seen: dict[int, int] = {}
    return list(
        map(
            Job,
            columns.ids,
            kinds,
            columns.payloads,
            _spread(columns.states, count),
            _shared(columns.created_ms, count, seen),
            _shared(columns.run_at_ms, count, seen),
            _spread(columns.attempts, count),
            _spread(columns.failures, count),
            _spread(columns.workers, count),
            _shared(columns.started_ms, count, seen),
        )
    )


def _extra(row: ExtraRow) -> JobExtra:
    return JobExtra(
        row.unique_key, row.unique_ttl_ms, row.schedule_id, row.nominal_ms,
        row.expires_at_ms, row.deadline_ms, row.attempts, stop_by_ms=row.stop_by_ms,
    )  # fmt: skip
