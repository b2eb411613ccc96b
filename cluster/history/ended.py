"""Jobs that ended, as the machine left them: what the history makes of their last rows.

The machine lets go of a row when its job ends, and a job that comes back gets another one. So rows
are handed as they are to the thread that writes, and read there: one pass per field, instead of one
object per job.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Self

import msgspec

from cluster.history.chunk import Values
from cluster.history.record import FinishedJob, PastAttempt
from cluster.machine.effects import Finished
from cluster.machine.lifecycle import STATUS
from cluster.machine.model import Attempt, JobSpec
from cluster.machine.tables import Job, JobExtra, QueueRow, SpecRow

NO_EXTRA = JobExtra()

_STATES = {status: state for state, status in STATUS.items()}
_encode = msgspec.msgpack.Encoder().encode
_specs = msgspec.msgpack.Decoder(JobSpec)


class Ended:
    """Finished jobs in the order of their ids, each once: the one with the highest index."""

    def __init__(self, finished: list[Finished], indexes: list[int]) -> None:
        self.finished = finished
        self.indexes = indexes
        self.jobs = [each.job for each in finished]
        self.ids = [job.id for job in self.jobs]
        self.extras = [job.extra for job in self.jobs]

    @classmethod
    def of(cls, lots: Iterable[tuple[int, Sequence[Finished]]]) -> Self:
        """`lots` are what single log entries finished, with their indexes."""
        finished: list[Finished] = []
        indexes: list[int] = []
        for index, lot in lots:
            finished += lot
            indexes += [index] * len(lot)
        ended = cls(finished, indexes)
        ids = ended.ids
        if len(set(ids)) < len(ids):
            return ended._each_once()
        if sorted(ids) != ids:
            return ended.only(sorted(range(len(ids)), key=ids.__getitem__))
        return ended

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, positions: Sequence[int]) -> Self:
        return type(self)(
            [self.finished[position] for position in positions],
            [self.indexes[position] for position in positions],
        )

    def _each_once(self) -> Self:
        latest: dict[int, int] = {}
        for position, job_id in enumerate(self.ids):
            other = latest.get(job_id)
            if other is None or self.indexes[other] <= self.indexes[position]:
                latest[job_id] = position
        return self.only([latest[job_id] for job_id in sorted(latest)])

    def runs(self) -> list[tuple[int, str, int, int]]:
        """Those of schedules: (id, schedule, nominal ms, finished ms)."""
        if _has_none(self.extras):
            return []
        return [
            (job_id, extra.schedule_id, extra.nominal_ms, finished.finished_ms)
            for job_id, extra, finished in zip(self.ids, self.extras, self.finished, strict=True)
            if extra is not None and extra.schedule_id
        ]

    def values(self, start: int, stop: int) -> Values:
        """The fields of a `FinishedJob` of these rows, one column each."""
        finished, jobs = self.finished[start:stop], self.jobs[start:stop]
        specs = _once([job.kind.spec for job in jobs])
        values: Values = {
            "job_id": self.ids[start:stop],
            "index": self.indexes[start:stop],
            "status": [STATUS[state] for state in _once([job.state for job in jobs])],
            "name": [spec.name for spec in specs],
            "queue": [spec.queue for spec in specs],
            "tags": [spec.tags for spec in specs],
            "spec": [spec_bytes(spec) for spec in specs],
            "finished_ms": [each.finished_ms for each in finished],
            "created_ms": [job.created_ms for job in jobs],
            "run_at_ms": [job.run_at_ms for job in jobs],
            "started_ms": [job.started_ms for job in jobs],
            "attempt": [job.attempt for job in jobs],
            "failures": [job.failures for job in jobs],
            "worker_id": [job.worker_id for job in jobs],
            "payload": [job.payload for job in jobs],
            "output": [each.output for each in finished],
            "error_type": [each.error_type for each in finished],
            "error_message": [each.error_message for each in finished],
            "log": [each.log for each in finished],
        }
        extras = self.extras[start:stop]
        if not _has_none(extras):
            values |= _values_of_extras([extra or NO_EXTRA for extra in extras])
        return values


def record_of(finished: Finished, index: int) -> FinishedJob:
    """The same for a single job."""
    job = finished.job
    spec, extra = job.kind.spec, job.extra or NO_EXTRA
    return FinishedJob(
        job_id=job.id,
        index=index,
        status=STATUS[job.state],
        name=spec.name,
        queue=spec.queue,
        tags=spec.tags,
        finished_ms=finished.finished_ms,
        created_ms=job.created_ms,
        run_at_ms=job.run_at_ms,
        started_ms=job.started_ms,
        attempt=job.attempt,
        failures=job.failures,
        worker_id=job.worker_id,
        payload=job.payload,
        output=finished.output,
        error_type=finished.error_type,
        error_message=finished.error_message,
        log=finished.log,
        schedule_id=extra.schedule_id,
        nominal_ms=extra.nominal_ms,
        unique_key=extra.unique_key,
        expires_at_ms=extra.expires_at_ms,
        deadline_ms=extra.deadline_ms,
        attempts=_past(extra),
        spec=spec_bytes(spec),
    )


def finished_of(row: FinishedJob) -> Finished:
    """The way back: what the machine would have told of the job of this row."""
    spec = _specs.decode(row.spec) if row.spec else JobSpec(row.name, row.queue, tags=row.tags)
    kind = SpecRow(spec, QueueRow(spec.queue), (spec.queue, spec.name))
    extra = JobExtra(
        unique_key=row.unique_key,
        schedule_id=row.schedule_id,
        nominal_ms=row.nominal_ms,
        expires_at_ms=row.expires_at_ms,
        deadline_ms=row.deadline_ms,
        attempts=[_attempt(past) for past in row.attempts] or None,
    )
    job = Job(
        row.job_id, kind, row.payload, _STATES[row.status], row.created_ms, row.run_at_ms,
        row.attempt, row.failures, row.worker_id, row.started_ms,
        extra=None if extra == NO_EXTRA else extra,
    )  # fmt: skip
    return Finished(job, row.finished_ms, row.output, row.error_type, row.error_message, row.log)


def _attempt(past: PastAttempt) -> Attempt:
    return Attempt(
        past.attempt, past.worker_id, past.started_ms, past.ended_ms,
        past.outcome, past.error_type, past.error_message, past.log,
    )  # fmt: skip


def size_bytes(finished: Sequence[Finished]) -> int:
    """About how much memory these hold."""
    return sum(
        len(each.job.payload) + len(each.output or b"") + len(each.log) + 500 for each in finished
    )


@lru_cache(maxsize=1024)
def spec_bytes(spec: JobSpec) -> bytes:
    """Like jobs share their spec, so it is rarely encoded."""
    return _encode(spec)


def _once(values: list[Any]) -> list[Any]:
    """A single value for many like ones."""
    return values[:1] if values.count(values[0]) == len(values) else values


def _has_none(extras: list[JobExtra | None]) -> bool:
    return extras.count(None) == len(extras)


def _values_of_extras(extras: list[JobExtra]) -> Values:
    return {
        "schedule_id": [extra.schedule_id for extra in extras],
        "nominal_ms": [extra.nominal_ms for extra in extras],
        "unique_key": [extra.unique_key for extra in extras],
        "expires_at_ms": [extra.expires_at_ms for extra in extras],
        "deadline_ms": [extra.deadline_ms for extra in extras],
        "attempts": [_past(extra) for extra in extras],
    }


def _past(extra: JobExtra) -> tuple[PastAttempt, ...]:
    return tuple(
        PastAttempt(
            each.number, each.worker_id, each.started_ms, each.ended_ms,
            each.outcome, each.error_type, each.error_message, each.log,
        )
        for each in extra.attempts or ()
    )  # fmt: skip
