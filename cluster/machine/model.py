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

OVERLAPS = ("skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all")
Overlap = Annotated[str, Meta(pattern=f"^({'|'.join(OVERLAPS)})$")]


class RetrySpec(Struct, array_like=True, frozen=True, gc=False):
    """How the leader computes the next attempt's time; the machine never evaluates it."""

    strategy: str = "exponential"
    base_ms: Ms = 1_000
    max_ms: Ms = 300_000
    jitter: bool = True


class JobSpec(Struct, array_like=True, frozen=True, gc=False, cache_hash=True):
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


class ScheduleEvent(Struct, array_like=True, frozen=True, gc=False):
    """Something that happened to a schedule, `count` times in a row. Times are epoch ms.

    Kinds: launched, late, triggered, backfilled (a run starts); skipped, missed, merged (one does
    not, for `reason`); buffered, catchup (they wait); cancelled_other; replanned, changed, paused,
    resumed, ended, deleted; backfill_started, backfill_stopped, backfill_finished."""

    at_ms: int
    kind: str
    nominal_ms: int = 0
    last_ms: int = 0  # the last nominal time when `count` is more than one
    count: int = 1
    reason: str = ""
    job_id: int = 0
