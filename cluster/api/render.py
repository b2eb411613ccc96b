"""Rows to answers: times to RFC 3339, payloads spliced in as they came.

Payloads are JSON text since the edge let them in; outputs come from workers, so they are looked at
before they are spliced into a document of ours.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from cluster.api.answers import (
    JobAnswer,
    ProgressAnswer,
    RetryAnswer,
    TimelineEvent,
)
from cluster.api.codec import encode_json
from cluster.machine import lifecycle
from cluster.machine.model import RetrySpec
from cluster.machine.views import JobView

NULL = msgspec.Raw(b"null")

_check_json = msgspec.json.Decoder(msgspec.Raw).decode


@lru_cache(maxsize=4096)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def time_text(epoch_ms: int) -> str | None:
    """RFC 3339 in UTC with milliseconds; None for 0."""
    if not epoch_ms:
        return None
    second, ms = divmod(epoch_ms, 1000)
    return f"{_second_text(second)}.{ms:03d}Z"


def seconds_or_none(duration_ms: int) -> float | None:
    return duration_ms / 1000 if duration_ms else None


def worker_text(worker_id: int) -> str | None:
    return f"w{worker_id}" if worker_id else None


def output_json(output: bytes | None) -> msgspec.Raw:
    """A worker's output as JSON; what is not JSON text is shown as a string."""
    if output is None:
        return NULL
    try:
        if not output.isascii():
            str(output, "utf-8")
        return _check_json(output)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.Raw(encode_json(output.decode("utf-8", "replace")))


@lru_cache(maxsize=1024)
def retry_answer(retry: RetrySpec) -> RetryAnswer:
    return RetryAnswer(
        retry.strategy, retry.base_ms / 1000, retry.max_ms / 1000, bool(retry.jitter)
    )


def _total_seconds(view: JobView) -> float | None:
    """The limit as it was given: the deadline was computed some ms before the job was booked."""
    if not view.deadline_ms:
        return None
    total_ms = view.deadline_ms - view.created_ms
    return round(total_ms / 1000, 1) if total_ms > 1000 else total_ms / 1000


def job_answer(view: JobView, progress: tuple[float | None, str | None] | None = None) -> JobAnswer:
    """A live job, dead letter or finished job as clients see it."""
    spec, state = view.spec, view.state
    text_id = str(view.id)
    waits = state in (lifecycle.SCHEDULED, lifecycle.RETRYING)
    due = time_text(view.run_at_ms)
    return JobAnswer(
        text_id,
        text_id,
        spec.name,
        spec.queue,
        spec.priority,
        lifecycle.STATUS[state],  # type: ignore[arg-type]
        lifecycle.REASON.get(state) if view.is_offered else "no_worker",  # type: ignore[arg-type]
        view.attempt,
        view.failures,
        spec.max_retries,
        retry_answer(spec.retry),
        msgspec.Raw(view.payload) if view.payload else NULL,
        spec.tags,
        time_text(view.created_ms),
        due,
        due if waits else None,
        time_text(view.started_ms),
        time_text(view.finished_ms),
        worker_text(view.worker_id),
        view.error_message or None,
        view.error_type or None,
        output_json(view.output),
        view.unique_key or None,
        view.schedule_id or None,
        time_text(view.nominal_ms),
        spec.timeout_ms / 1000,
        time_text(view.expires_at_ms),
        _total_seconds(view),
        ProgressAnswer(*progress) if progress is not None else None,
    )


def timeline(view: JobView) -> list[TimelineEvent]:
    """What is known of a job's life, oldest first."""
    events = [TimelineEvent(time_text(view.created_ms), "created", None, None, None)]
    attempts = view.attempts or []
    for a in attempts:
        worker = worker_text(a.worker_id)
        events.append(TimelineEvent(time_text(a.started_ms), "started", a.number, worker, None))
        detail = f"{a.error_type}: {a.error_message}" if a.error_type else None
        events.append(TimelineEvent(time_text(a.ended_ms), a.outcome, a.number, worker, detail))
    ended = attempts[-1].number if attempts else 0
    if view.started_ms and view.attempt > ended:
        events.append(
            TimelineEvent(
                time_text(view.started_ms), "started", view.attempt,
                worker_text(view.worker_id), None,
            )
        )  # fmt: skip
    events.append(_last_event(view, bool(ended) and ended == view.attempt))
    return events


def _last_event(view: JobView, attempt_told: bool) -> TimelineEvent:
    """Where the job stands now, or how it ended. The end of a last attempt that failed is told
    already; what remains to say is that there will be no other."""
    attempt = view.attempt or None
    if lifecycle.is_finished(view.state):
        detail = f"{view.error_type}: {view.error_message}" if view.error_type else None
        name = lifecycle.STATUS[view.state]
        if attempt_told and view.state == lifecycle.FAILED:
            name, attempt, detail = "dead_letter", None, None
        return TimelineEvent(time_text(view.finished_ms), name, attempt, None, detail)
    if view.state == lifecycle.RUNNING:
        worker = worker_text(view.worker_id)
        return TimelineEvent(None, "running", attempt, worker, None)
    name = lifecycle.REASON[view.state]
    return TimelineEvent(time_text(view.run_at_ms), name, attempt, None, None)
