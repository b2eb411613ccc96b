"""Finished jobs that are not in the file yet, as they came: a list per log entry.

Filling it costs the same for one job and for a thousand. An index by id is made when somebody asks
for a job, and only of what has come since the last question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.history.ended import record_of
from cluster.history.record import FinishedJob, Query
from cluster.machine.effects import Finished


class Buffer:
    """Is filled and asked by one thread; another one may read `lots`, once nothing is added."""

    def __init__(self, lots: list[tuple[int, Sequence[Finished]]] | None = None) -> None:
        self.lots = [] if lots is None else lots
        self.rows = sum(len(finished) for _, finished in self.lots)
        self._by_id: dict[int, tuple[int, Finished]] = {}  # of the first `_indexed` lots
        self._indexed = 0

    def add(self, index: int, finished: Sequence[Finished]) -> None:
        self.lots.append((index, finished))
        self.rows += len(finished)

    def then(self, later: Buffer) -> Buffer:
        """Both in one. Neither changes with it."""
        return Buffer(self.lots + later.lots)

    def find(self, job_id: int) -> FinishedJob | None:
        found = self._all().get(job_id)
        return None if found is None else record_of(found[1], found[0])

    def newest(self, query: Query, before_id: int) -> Iterator[FinishedJob]:
        """Matching rows with smaller ids, newest first."""
        by_id = self._all()
        for job_id in sorted((job_id for job_id in by_id if job_id < before_id), reverse=True):
            index, finished = by_id[job_id]
            row = record_of(finished, index)
            if query.accepts(row.status, row.queue, row.name, row.tags):
                yield row

    def runs(
        self, schedule_id: str, nominal_ms: int | None, before_id: int
    ) -> Iterator[FinishedJob]:
        """Jobs of a schedule with smaller ids."""
        for job_id, (index, finished) in self._all().items():
            extra = finished.job.extra
            if (
                extra is not None
                and "" != extra.schedule_id == schedule_id
                and job_id < before_id
                and nominal_ms in (None, extra.nominal_ms)
            ):
                yield record_of(finished, index)

    def _all(self) -> dict[int, tuple[int, Finished]]:
        by_id = self._by_id
        for index, lot in self.lots[self._indexed :]:
            for finished in lot:
                job_id = finished.job.id
                other = by_id.get(job_id)
                if other is None or other[0] <= index:
                    by_id[job_id] = (index, finished)
        self._indexed = len(self.lots)
        return by_id
