"""Jobs that a worker was given by one commit, in the two forms in which sinks pass them on.

Jobs of one kind differ in little but id and payload, so most of them fit into columns under one
head; what has a deadline or too few of its kind is told row by row.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from cluster.actors.services import Assignment, LikeJobs

if TYPE_CHECKING:
    from cluster.machine.tables import Job, SpecRow

LIKE_MIN = 4  # fewer of a kind are not worth a head of their own

_kind, _extra = attrgetter("kind"), attrgetter("extra")
_ids, _attempts = attrgetter("id"), attrgetter("attempt")
_payloads, _failures = attrgetter("payload"), attrgetter("failures")


class Assigned:
    """To be read before anything else is applied: the rows are those of the state."""

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs = jobs

    def rows(self) -> list[Assignment]:
        return [_row(job) for job in self._jobs]

    def columns(self) -> tuple[list[LikeJobs], list[Assignment]]:
        """Jobs of one kind in columns, and the rest."""
        like, rest = _by_kind(self._jobs)
        return [_columns(kind, jobs) for kind, jobs in like], [_row(job) for job in rest]


def _by_kind(jobs: list[Job]) -> tuple[list[tuple[SpecRow, list[Job]]], list[Job]]:
    rest: list[Job] = []
    if any(map(_extra, jobs)):
        rest = [job for job in jobs if _has_deadline(job)]
        jobs = [job for job in jobs if not _has_deadline(job)]
    if len(jobs) >= LIKE_MIN and len(set(map(id, map(_kind, jobs)))) == 1:
        return [(jobs[0].kind, jobs)], rest
    groups: dict[int, list[Job]] = {}
    for job in jobs:
        groups.setdefault(id(job.kind), []).append(job)
    like = [(group[0].kind, group) for group in groups.values() if len(group) >= LIKE_MIN]
    rest += [job for job in jobs if len(groups[id(job.kind)]) < LIKE_MIN]
    return like, rest


def _has_deadline(job: Job) -> bool:
    return job.extra is not None and job.extra.deadline_ms != 0


def _columns(kind: SpecRow, jobs: list[Job]) -> LikeJobs:
    spec, failures = kind.spec, list(map(_failures, jobs))
    return LikeJobs(
        spec.name,
        spec.queue,
        spec.timeout_ms,
        spec.max_retries,
        list(map(_ids, jobs)),
        list(map(_attempts, jobs)),
        list(map(_payloads, jobs)),
        failures if any(failures) else None,
    )


def _row(job: Job) -> Assignment:
    """What is left until the job's deadline bounds the attempt like its timeout, so that a worker
    needs no wall clock."""
    spec, timeout_ms = job.kind.spec, job.kind.spec.timeout_ms
    deadline_ms = job.extra.deadline_ms if job.extra is not None else 0
    if deadline_ms:
        left_ms = max(deadline_ms - job.started_ms, 1)
        timeout_ms = min(timeout_ms or left_ms, left_ms)
    return Assignment(
        job.id,
        job.attempt,
        spec.name,
        spec.queue,
        job.payload,
        timeout_ms,
        deadline_ms,
        job.failures,
        spec.max_retries,
    )
