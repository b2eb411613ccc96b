"""Typed views of what the API answers. Unknown fields are ignored, so that an older client reads
a newer server; every field but the identity has a default, so that the reverse holds too.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from .errors import QuorateError

T = TypeVar("T")

FINISHED = frozenset({"completed", "failed", "cancelled", "skipped"})


class Progress(msgspec.Struct, frozen=True):
    """The latest report of a running job."""

    fraction: float | None = None
    message: str | None = None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job at one moment. Times are UTC, durations seconds."""

    job_id: str
    name: str = ""
    queue: str = "default"
    priority: int = 5
    status: str = "pending"
    reason: str | None = None
    attempt: int = 0
    failures: int = 0
    max_retries: int = 0
    retry: dict[str, Any] | None = None
    payload: Any = None
    tags: list[str] | None = None
    created_at: datetime | None = None
    scheduled_at: datetime | None = None
    next_run: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    worker_id: str | None = None
    error_message: str | None = None
    error_type: str | None = None
    output: Any = None
    unique_key: str | None = None
    schedule_id: str | None = None
    nominal_at: datetime | None = None
    timeout_seconds: float | None = None
    expires_at: datetime | None = None
    total_timeout_seconds: float | None = None
    progress: Progress | None = None

    @property
    def finished(self) -> bool:
        """True once nothing will happen to this job any more."""
        return self.status in FINISHED


class MemberView(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the cluster. `standing`: voter, joining (becomes a voter) or learner."""

    id: str
    standing: str = "voter"
    role: str = "follower"
    http: str | None = None
    connected: bool = False
    match_index: int | None = None
    last_contact_ms: float | None = None
    version: str | None = None
    releases: str | None = None
    clock_skew_seconds: float | None = None
    feature_levels: tuple[int, int] | None = None
    feature_level_max: int | None = None


class PeerClockView(msgspec.Struct, frozen=True, kw_only=True):
    """Another member's clock; `skew_seconds`: how far its wall clock is ahead."""

    id: str
    skew_seconds: float = 0.0
    round_trip_ms: int = 0
    age_seconds: float = 0.0
    refused: bool = False
    version: str = ""
    releases: str = ""


class ClockView(msgspec.Struct, frozen=True, kw_only=True):
    """The clock of a node. `now` is the time it runs at: that of its wall clock unless that is
    `refused`. `standing`: majority, alone, unconfirmed, refused or accepted."""

    node_id: str
    standing: str = ""
    refused: bool = False
    wall: datetime | None = None
    now: datetime | None = None
    replicated: datetime | None = None
    off_seconds: float = 0.0
    bound_seconds: float = 0.0
    replicated_ahead_seconds: float = 0.0
    version: str = ""
    releases: str = ""
    peers: list[PeerClockView] = []
    warnings: list[str] = []


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A registered worker."""

    worker_id: str
    name: str = ""
    status: str = "active"
    slots: int = 0
    running: Any = None
    queues: list[str] = []
    tasks: list[str] = []
    last_seen_at: datetime | None = None
    address: str | None = None


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list; `next_cursor` is None on the last one."""

    items: list[T]
    next_cursor: str | None = None


class ItemResult(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to one job of a bulk operation."""

    id: str
    ok: bool = True
    status: str | None = None
    code: str | None = None
    detail: str | None = None


class TimelineEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to a job."""

    event: str
    at: datetime | None = None
    attempt: int | None = None
    worker_id: str | None = None
    detail: Any = None


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The kept log of one attempt."""

    text: str
    attempt: int | None = None


def read(raw: bytes, kind: type[T]) -> T:
    """`raw` JSON as a `kind`; QuorateError when the server speaks another dialect."""
    try:
        return msgspec.json.decode(raw, type=kind, strict=False)
    except msgspec.ValidationError as first:
        # One job's number beyond a double (1e999) must not hide a whole page.
        try:
            return msgspec.convert(json.loads(raw), kind, strict=False)
        except (ValueError, RecursionError):
            raise QuorateError(f"cannot read the node's answer: {first}") from first
    except (msgspec.MsgspecError, RecursionError) as error:
        raise QuorateError(f"cannot read the node's answer: {error}") from error
