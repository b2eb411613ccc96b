"""Writes finished jobs to this node's own history, on every node, leader or not.

Only converts rows and hands them over; the history's own thread does the writing. The log may be
truncated only behind what the history vouches for, so nothing finished is ever in neither place.
"""

from __future__ import annotations

import msgspec

from cluster.history import FinishedJob, History, PastAttempt, PastEvent
from cluster.machine.chronicle import LAUNCHES
from cluster.machine.effects import Effects, Finished
from cluster.machine.lifecycle import STATUS
from cluster.machine.model import Attempt, ScheduleEvent
from cluster.machine.tables import JobExtra, SpecRow
from cluster.raft_state import RaftState

SEQ_BITS = 20  # events of one log entry; an entry has a few thousand commands at most

_encode = msgspec.msgpack.Encoder().encode


class Archivist:
    """Feeds the history from effects."""

    def __init__(self, raft: RaftState, history: History) -> None:
        self._history = history
        self._kind: SpecRow | None = None
        self._kind_bytes = b""
        raft.on_effects(self._on_effects)
        raft.before_truncation(history.flushed)

    def _on_effects(self, effects: Effects, index: int) -> None:
        finished = effects.jobs_finished
        if finished:
            self._history.add(index, [self._record(each, index) for each in finished])
        if effects.schedule_events:
            self._tell(effects.schedule_events, index)

    def _tell(self, told: list[tuple[str, ScheduleEvent]], index: int) -> None:
        """What befell schedules; their launches are known from the jobs themselves."""
        events = [
            PastEvent(
                index << SEQ_BITS | place, schedule_id, event.at_ms, event.kind, event.nominal_ms,
                event.last_ms, event.count, event.reason, event.job_id,
            )
            for place, (schedule_id, event) in enumerate(told)
            if event.kind not in LAUNCHES
        ]  # fmt: skip
        if events:
            self._history.add_schedule_events(index, events)

    def _record(self, finished: Finished, index: int) -> FinishedJob:
        job = finished.job
        kind = job.kind
        if kind is not self._kind:
            # Jobs finish in runs of the same kind; the last one's bytes serve nearly always.
            self._kind, self._kind_bytes = kind, _encode(kind.spec)
        spec = kind.spec
        record = FinishedJob(
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
            spec=self._kind_bytes,
        )
        return record if job.extra is None else _with_extra(record, job.extra)


def _with_extra(record: FinishedJob, extra: JobExtra) -> FinishedJob:
    return msgspec.structs.replace(
        record,
        schedule_id=extra.schedule_id,
        nominal_ms=extra.nominal_ms,
        unique_key=extra.unique_key,
        expires_at_ms=extra.expires_at_ms,
        deadline_ms=extra.deadline_ms,
        attempts=tuple(_past(each) for each in extra.attempts or ()),
    )


def _past(attempt: Attempt) -> PastAttempt:
    return PastAttempt(
        attempt.number,
        attempt.worker_id,
        attempt.started_ms,
        attempt.ended_ms,
        attempt.outcome,
        attempt.error_type,
        attempt.error_message,
        attempt.log,
    )
