"""Builds the body of one job request from Python arguments, so that every way of submitting
(task, by name, many at once, command line) says the same thing on the wire.

Checks only what cannot be expressed on the wire; ranges and names are the server's to judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

import msgspec

from . import payloads
from .durations import Duration, to_rfc3339, to_seconds

Priority = int | Literal["critical", "high", "normal", "low"]


class Retry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How failed attempts are spaced; the server computes the delays."""

    strategy: Literal["exponential", "linear", "fibonacci", "fixed"] = "exponential"
    base_seconds: float | None = None
    max_seconds: float | None = None
    jitter: bool | None = None


class JobOptions(TypedDict, total=False):
    """What may be said about a job besides its name and payload."""

    queue: str
    priority: Priority
    max_retries: int
    retry: Retry | str | Mapping[str, Any]
    timeout: Duration
    total_timeout: Duration
    queue_timeout: Duration
    tags: Sequence[str]


class SubmitOptions(JobOptions, total=False):
    """JobOptions plus what belongs to one submission."""

    delay: Duration
    run_at: datetime | str
    expires_at: datetime | str
    key: str
    key_ttl: Duration
    on_conflict: Literal["reject", "return", "replace"]


class JobRequest(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One job as POST /v1/jobs takes it."""

    name: str
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    queue: str | None = None
    priority: int | str | None = None
    delay_seconds: float | None = None
    run_at: str | None = None
    max_retries: int | None = None
    retry: Any = None
    timeout_seconds: float | None = None
    total_timeout_seconds: float | None = None
    queue_timeout_seconds: float | None = None
    expires_at: str | None = None
    unique_key: str | None = None
    unique_ttl_seconds: float | None = None
    on_conflict: str | None = None
    tags: list[str] | None = None

    def to_json(self) -> bytes:
        """The JSON text of this request."""
        return _encoder.encode(self)


_encoder = msgspec.json.Encoder()

# Python option -> (field on the wire, conversion)
_PLAIN = ("queue", "priority", "max_retries", "on_conflict")
_SECONDS = {
    "delay": "delay_seconds",
    "timeout": "timeout_seconds",
    "total_timeout": "total_timeout_seconds",
    "queue_timeout": "queue_timeout_seconds",
    "key_ttl": "unique_ttl_seconds",
}
_INSTANTS = ("run_at", "expires_at")


def option_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options under their names on the wire. TypeError for an unknown one."""
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name in _PLAIN:
            fields[name] = value
        elif name in _SECONDS:
            fields[_SECONDS[name]] = to_seconds(value)
        elif name in _INSTANTS:
            fields[name] = to_rfc3339(value)
        elif name == "key":
            fields["unique_key"] = value
        elif name == "tags":
            if isinstance(value, str):
                raise TypeError(f"tags takes several texts: write [{value!r}]")
            fields["tags"] = list(value)
        elif name == "retry":
            fields["retry"] = {"strategy": value} if isinstance(value, str) else value
        else:
            raise TypeError(f"unknown job option {name!r}")
    return fields


def job_request(name: str, payload: Any, options: Mapping[str, Any]) -> JobRequest:
    """A request for task `name`. PayloadInvalid when the payload has no JSON form."""
    request = JobRequest(name=name, **option_fields(options))
    if payload is not None:
        request.payload = msgspec.Raw(payloads.encode(payload))
    return request
