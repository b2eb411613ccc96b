"""Values that travel inside commands and stay in rows: what a job is asked to be.

Everything here is frozen and shared: a thousand like jobs point at one `JobSpec`.
Fields are appended with defaults, never reordered: old logs must replay.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from cluster.plan import Count, Ms

PRIORITY_MIN, PRIORITY_MAX, PRIORITY_DEFAULT = 1, 10, 5
Priority = Annotated[int, Meta(ge=PRIORITY_MIN, le=PRIORITY_MAX)]


class RetrySpec(Struct, array_like=True, frozen=True, gc=False):
    """How the leader computes the next attempt's time; the machine never evaluates it."""

    strategy: str = "exponential"
    base_ms: Ms = 1_000
    max_ms: Ms = 300_000
    jitter: bool = True


class JobSpec(Struct, array_like=True, frozen=True, gc=False):
    """What like jobs have in common. `timeout_ms` bounds one execution."""

    name: str
    queue: str = "default"
    priority: Priority = PRIORITY_DEFAULT
    max_retries: Count = 3
    retry: RetrySpec = RetrySpec()
    timeout_ms: Ms = 3_600_000
    tags: tuple[str, ...] = ()


class Attempt(Struct, array_like=True, frozen=True, gc=False):
    """One ended attempt that did not complete the job. Times are epoch milliseconds."""

    number: int
    worker_id: int
    started_ms: int
    ended_ms: int
    outcome: str  # "failed", "released", "lost", "timeout"
    error_type: str = ""
    error_message: str = ""
    log: str = ""


class WorkerSpec(Struct, array_like=True, frozen=True, gc=False):
    """What a worker offers. A job goes only to a worker that offers its queue and its name."""

    name: str
    slots: Count
    queues: tuple[str, ...]
    tasks: tuple[str, ...]
    labels: dict[str, str] = {}
    ttl_ms: Ms = 10_000
    address: str = ""
    protocol: str = "stream"  # or "poll"
