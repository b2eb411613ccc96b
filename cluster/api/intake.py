"""Requests to what the machine is told: judges what several fields say together.

Everything that depends on the clock is computed here, so the log carries instants and never
formulas. Does not propose anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import UNSET, Raw, UnsetType

from cluster.api.codec import BodyDecoder, encode_json
from cluster.api.errors import ProblemError
from cluster.api.models import JobRequest, RetryRequest
from cluster.api.schedule_models import ScheduleRequest
from cluster.machine.commands import (
    ON_CONFLICT_REJECT,
    ON_CONFLICT_REPLACE,
    ON_CONFLICT_RETURN,
    JobGroup,
)
from cluster.machine.model import JobSpec, RetrySpec
from cluster.settings import Settings

INSTANT_MS_END = 253_076_227_200_000  # 9989-09-01: what has a date in every zone
PAST_SLACK_MS = 1_000  # a run_at of "now" has aged by the way here
PRIORITIES = {"critical": 1, "high": 3, "normal": 5, "low": 8}
ON_CONFLICT = {
    "return": ON_CONFLICT_RETURN,
    "reject": ON_CONFLICT_REJECT,
    "replace": ON_CONFLICT_REPLACE,
}
decode_job = BodyDecoder(JobRequest, optional=False).decode
DEFAULT_RETRY = RetrySpec()
NULL_PAYLOAD = b"null"

Definition = JobRequest | ScheduleRequest


def refuse(pointer: str, detail: str) -> ProblemError:
    return ProblemError("validation", detail, pointer=pointer)


def ms(seconds: float) -> int:
    """Whole milliseconds; anything above zero stays above zero."""
    return round(seconds * 1000) or (1 if seconds > 0 else 0)


def instant_ms(instant: datetime, pointer: str) -> int:
    """Epoch milliseconds, negative before 1970. Raises ProblemError for what no answer can show."""
    epoch_ms = round(instant.timestamp() * 1000)
    if epoch_ms >= INSTANT_MS_END:
        raise refuse(pointer, "this moment lies beyond the year 9989")
    return epoch_ms


def check_label(value: str, pointer: str) -> str:
    """Names of tasks, queues and tags: printable, nothing at the ends that nobody sees."""
    if not value.isprintable() or value != value.strip():
        raise refuse(pointer, "write printable characters without blanks at the ends")
    return value


def priority_of(value: int | str) -> int:
    return value if isinstance(value, int) else PRIORITIES[value]


def payload_of(payload: Raw | UnsetType, settings: Settings) -> bytes:
    """The payload's JSON text. Raises ProblemError when it is larger than the limit."""
    if payload is UNSET:
        return NULL_PAYLOAD
    text = bytes(payload)
    check_payload_size(len(text), settings)
    return text


def check_payload_size(size: int, settings: Settings) -> None:
    if size > settings.payload_max_bytes:
        raise ProblemError(
            "payload_too_large",
            f"the payload has {size} bytes; {settings.payload_max_bytes} are allowed",
            pointer="/payload",
        )


def name_of(request: Definition) -> str:
    """The task's name: given, or `command` for the shorthand."""
    name = request.name
    if request.command is not None:
        if name is not UNSET and name != "command":
            raise refuse("/command", "the shorthand runs task `command`: leave out `name`")
        if request.payload is not UNSET:
            raise refuse("/payload", "`command` is the payload: give one of both")
        return "command"
    if isinstance(name, UnsetType):
        raise refuse("/name", "this field is required")
    return check_label(name, "/name")


def definition_payload(request: Definition, settings: Settings) -> bytes:
    if request.command is None:
        return payload_of(request.payload, settings)
    text = encode_json({"command": request.command})
    check_payload_size(len(text), settings)
    return text


def retry_of(request: RetryRequest | None) -> RetrySpec:
    if request is None:
        return DEFAULT_RETRY
    if request.max_seconds < request.base_seconds:
        raise refuse("/retry/max_seconds", "this must not be less than base_seconds")
    return RetrySpec(
        request.strategy, ms(request.base_seconds), ms(request.max_seconds), request.jitter
    )


def spec_of(request: Definition, settings: Settings) -> JobSpec:
    """What like jobs share. Raises ProblemError."""
    timeout_seconds = request.timeout_seconds
    if timeout_seconds is None:
        timeout_seconds = settings.job_timeout_seconds
    tags: tuple[str, ...] = ()
    if request.tags:
        tags = tuple(
            check_label(tag, f"/tags/{position}") for position, tag in enumerate(request.tags)
        )
    queue = request.queue
    return JobSpec(
        name_of(request),
        queue if queue == "default" else check_label(queue, "/queue"),
        priority_of(request.priority),
        request.max_retries,
        retry_of(request.retry),
        ms(timeout_seconds),
        tags,
    )


def due_ms(request: JobRequest, now_ms: int) -> int:
    """When the job is due, 0 for now."""
    if request.run_at is None:
        return now_ms + ms(request.delay_seconds) if request.delay_seconds else 0
    if request.delay_seconds is not None:
        raise refuse("/run_at", "give run_at or delay_seconds, not both")
    run_at_ms = instant_ms(request.run_at, "/run_at")
    if run_at_ms < now_ms - PAST_SLACK_MS:
        raise refuse("/run_at", "this moment has passed")
    return run_at_ms if run_at_ms > now_ms else 0


def group_of(request: JobRequest, now_ms: int, settings: Settings) -> JobGroup:
    """A group without jobs yet: what `request` and all its likes have in common."""
    if request.schedule is not None:
        raise refuse("/schedule", "a schedule is created alone: POST /v1/schedules")
    if request.timezone is not None:
        raise refuse("/timezone", "only a schedule has one: times carry their offset")
    run_at_ms = due_ms(request, now_ms)
    starts_ms = run_at_ms or now_ms
    return JobGroup(
        spec_of(request, settings),
        [],
        run_at_ms,
        _expires_ms(request, starts_ms),
        _deadline_ms(request, now_ms, starts_ms),
        [] if request.unique_key is not None else None,
        ON_CONFLICT[request.on_conflict],
        _unique_ttl_ms(request, settings),
    )


def group_alone(request: JobRequest, now_ms: int, settings: Settings) -> JobGroup:
    """The group of one job. Raises ProblemError."""
    group = group_of(request, now_ms, settings)
    group.payloads.append(definition_payload(request, settings))
    if group.unique_keys is not None and request.unique_key is not None:
        group.unique_keys.append(request.unique_key)
    return group


def _unique_ttl_ms(request: JobRequest, settings: Settings) -> int:
    """How long the unique key outlives its job, so that a late retry is still the same job."""
    ttl_s = request.unique_ttl_seconds
    if request.unique_key is None:
        if ttl_s is not None:
            raise refuse("/unique_ttl_seconds", "this needs a unique_key")
        return 0
    return ms(settings.idempotency_ttl_seconds if ttl_s is None else ttl_s)


def _expires_ms(request: JobRequest, starts_ms: int) -> int:
    if request.expires_at is None:
        wait_s = request.queue_timeout_seconds
        return starts_ms + ms(wait_s) if wait_s is not None else 0
    if request.queue_timeout_seconds is not None:
        raise refuse("/expires_at", "give expires_at or queue_timeout_seconds, not both")
    expires_ms = instant_ms(request.expires_at, "/expires_at")
    if expires_ms <= starts_ms:
        raise refuse("/expires_at", "this moment must come after the job is due")
    return expires_ms


def _deadline_ms(request: JobRequest, now_ms: int, starts_ms: int) -> int:
    if request.total_timeout_seconds is None:
        return 0
    deadline_ms = now_ms + ms(request.total_timeout_seconds)
    if deadline_ms <= starts_ms:
        raise refuse("/total_timeout_seconds", "this time is over before the job is due")
    return deadline_ms


class Grouped:
    """A batch, cut into groups of like jobs; `accepted` are the positions of the good ones."""

    __slots__ = ("accepted", "errors", "groups")

    def __init__(self) -> None:
        self.groups: list[JobGroup] = []
        self.accepted: Sequence[int] = ()
        self.errors: dict[int, ProblemError] = {}


def group_jobs(
    requests: list[JobRequest | ProblemError], now_ms: int, settings: Settings
) -> Grouped:
    """Consecutive like jobs share a group. Errors are collected, they hurt nobody else.

    The loop body for a job like the one before is the hottest code of the edge: payload and key are
    taken out of the request, then one comparison in C tells whether anything else differs.
    """
    grouped = Grouped()
    errors, payload_max = grouped.errors, settings.payload_max_bytes
    head: JobRequest | None = None
    payloads: list[bytes] = []
    keys: list[str] | None = None
    for position, request in enumerate(requests):
        if isinstance(request, ProblemError):
            errors[position] = request
            continue
        payload, key = request.payload, request.unique_key
        if request.command is None:
            request.payload = UNSET
        if key is not None:
            request.unique_key = "+"
        if request != head:
            try:
                group = group_of(request, now_ms, settings)
                text = definition_payload(request, settings)
            except ProblemError as error:
                errors[position] = error
                continue
            # A command is its own payload, so such a job leads no group.
            head = request if request.command is None else None
            payloads, keys = group.payloads, group.unique_keys
            grouped.groups.append(group)
            if request.command is not None:
                payload = Raw(text)
        text = NULL_PAYLOAD if payload is UNSET else bytes(payload)
        if len(text) > payload_max:
            errors[position] = _too_large(len(text), settings)
            continue
        payloads.append(text)
        if keys is not None:
            keys.append(key or "")
    if errors:
        grouped.groups = [group for group in grouped.groups if group.payloads]
    count = len(requests)
    grouped.accepted = [i for i in range(count) if i not in errors] if errors else range(count)
    return grouped


def _too_large(size: int, settings: Settings) -> ProblemError:
    try:
        check_payload_size(size, settings)
    except ProblemError as error:
        return error
    raise AssertionError("only called for payloads beyond the limit")
