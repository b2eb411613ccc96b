"""What answers look like: structs that the encoder writes and the OpenAPI document shows.

Absent values are null, so that a reader can rely on every field being there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

Status = Literal["pending", "running", "completed", "failed", "cancelled", "skipped"]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
JsonValue = Annotated[Raw, Meta(description="Any JSON value, as it was given.")]


class RetryAnswer(Struct):
    strategy: str
    base_seconds: float
    max_seconds: float
    jitter: bool


class ProgressAnswer(Struct):
    fraction: float | None
    message: str | None


class JobAnswer(Struct):
    """A job, live or finished. `attempt` grows with every assignment, `failures` counts those that
    failed; a job handed back unfinished consumes no retry. Reason `no_worker` (shown for a single
    job): it is ready, but no registered worker offers its queue and its name."""

    job_id: str
    id: str
    name: str
    queue: str
    priority: int
    status: Status
    reason: Literal["scheduled", "ready", "retrying", "no_worker"] | None
    attempt: int
    failures: int
    max_retries: int
    retry: RetryAnswer
    payload: JsonValue
    tags: tuple[str, ...]
    created_at: Time | None
    scheduled_at: Time | None
    next_run: Time | None
    started_at: Time | None
    finished_at: Time | None
    worker_id: str | None
    error_message: str | None
    error_type: str | None
    output: JsonValue
    unique_key: str | None
    schedule_id: str | None
    nominal_at: Time | None
    timeout_seconds: float
    expires_at: Time | None
    total_timeout_seconds: float | None
    progress: ProgressAnswer | None


class JobsPage(Struct):
    items: list[JobAnswer]
    next_cursor: str | None


class BatchError(Struct, omit_defaults=True):
    """Why one job of a batch was refused."""

    index: int
    code: str
    detail: str
    pointer: str | None = None


class BatchAnswer(Struct):
    """`ids` in the order of the request, null where refused."""

    ids: list[str | None]
    errors: list[BatchError]


class BatchMinimal(Struct):
    """The answer to `Prefer: return=minimal`: ids are `first` to `last` without a gap."""

    first: str | None
    last: str | None
    count: int
    errors: list[BatchError]


class BulkItem(Struct, omit_defaults=True):
    id: str
    ok: bool
    status: str | None = None
    code: str | None = None
    detail: str | None = None


class BulkAnswer(Struct):
    """`more`: the filter fits further jobs; send the request again."""

    items: list[BulkItem]
    more: bool


class TimelineEvent(Struct):
    at: Time | None
    event: str
    attempt: int | None
    worker_id: str | None
    detail: str | None


class Timeline(Struct):
    events: list[TimelineEvent]


class LogItem(Struct):
    attempt: int
    text: str


class Logs(Struct):
    items: list[LogItem]


class ResultAnswer(Struct):
    job_id: str
    status: Status
    finished: bool
    output: JsonValue
    error_type: str | None
    error_message: str | None


class WorkerAnswer(Struct):
    worker_id: str
    id: str
    name: str
    status: Literal["active", "draining", "lost"]
    slots: int
    running: int
    running_jobs: list[str]
    queues: tuple[str, ...]
    tasks: tuple[str, ...]
    labels: dict[str, str]
    last_seen_at: Time | None
    registered_at: Time | None
    address: str | None
    protocol: str


class WorkersAnswer(Struct):
    items: list[WorkerAnswer]
    next_cursor: str | None = None


class RegisteredAnswer(Struct):
    worker_id: str
    ttl_seconds: float


class AssignmentAnswer(Struct):
    job_id: str
    attempt: int
    name: str
    queue: str
    payload: JsonValue
    timeout_seconds: float
    deadline: Time | None
    failures: int
    max_retries: int


class PollAnswer(Struct):
    jobs: list[AssignmentAnswer]


class AttemptAnswer(Struct):
    job_id: str
    attempt: int


class HeartbeatAnswer(Struct):
    """`cancel`: stop these, no result is wanted. `stop`: stop these and say how they ended."""

    cancel: list[AttemptAnswer]
    stop: list[AttemptAnswer]
    drain: bool


class CountAnswer(Struct):
    """`more`: some were left for the next request."""

    count: int
    more: bool


class QueueCounts(Struct):
    scheduled: int
    ready: int
    retrying: int
    running: int


class StatsAnswer(Struct):
    """`queue_length` counts jobs that could start now; totals run since the cluster began."""

    queue_length: int
    active_workers: int
    jobs_by_status: dict[str, int]
    queues: dict[str, QueueCounts]
    totals: dict[str, int]
    slots_total: int
    slots_used: int
    dead_letters: int
    leader: str | None
    index: int


class Member(Struct):
    id: str
    http: str | None
    role: str
    connected: bool
    match_index: int | None  # only the leader knows it of others
    last_contact_ms: float | None
    standing: str = "voter"  # or joining (becomes a voter), learner, none (not a member)
    version: str | None = None
    releases: str | None = None  # what its plans of schedules are computed with
    clock_skew_seconds: float | None = None  # how far its wall clock is ahead of the asked node's
    feature_levels: tuple[int, int] | None = None  # that its release knows; null: it does not say
    feature_level_max: int | None = None  # null: it sets no bound


class FeatureLevelAnswer(Struct):
    """What the cluster may use, so that all members can read it. `willing`: the highest level that
    all of them let it be raised to, 0 while one has not said what it knows. `raises_in_seconds`:
    only the leader knows when it raises the level by itself."""

    level: int
    known: int  # the highest that the asked node's release knows
    willing: int
    raises_in_seconds: float | None


class UpgradeAnswer(Struct):
    """`level` is the cluster's feature level now, or would be after a `dry_run`."""

    before: int
    level: int
    dry_run: bool


class ClusterAnswer(Struct):
    node_id: str
    leader_id: str | None
    leader: str | None
    role: str
    is_leader: bool
    has_quorum: bool
    ready: bool
    term: int
    epoch: int
    applied_index: int
    commit_index: int
    digest: str
    feature_level: FeatureLevelAnswer
    members: list[Member]
    warnings: list[str]
    consensus: dict[str, Any]


class PeerClockAnswer(Struct):
    """Another member's clock as the asked node knows it. `skew_seconds`: how far it is ahead."""

    id: str
    skew_seconds: float
    round_trip_ms: int
    age_seconds: float
    refused: bool
    version: str
    releases: str


class ClockStatusAnswer(Struct):
    """`now` is the time that the asked node runs at: that of its wall clock, unless this is
    `refused`. `standing`: majority (the clocks agree), alone (nobody to compare with), unconfirmed
    (no majority agrees), refused, or accepted (by an operator, against the majority)."""

    node_id: str
    standing: Literal["majority", "alone", "unconfirmed", "refused", "accepted"]
    refused: bool
    wall: Time | None
    now: Time | None
    replicated: Time | None
    off_seconds: float
    bound_seconds: float
    replicated_ahead_seconds: float
    version: str
    releases: str
    peers: list[PeerClockAnswer]
    warnings: list[str]


class MembersAnswer(Struct):
    """`epoch` counts the changes of membership."""

    epoch: int
    members: list[Member]


class TransferAnswer(Struct):
    leader_id: str


class HealthAnswer(Struct, omit_defaults=True):
    status: str
    checks: dict[str, bool] | None = None
    warnings: list[str] | None = None


class DebugFile(Struct):
    """A file of the data folder."""

    name: str
    bytes: int
    modified: Time | None


class DebugAnswer(Struct):
    """For people. Only `node_id`, `at`, `readiness` and `warnings` stay as they are from release to
    release. `readiness`: every check with the reason why it fails, empty if it does not."""

    node_id: str
    at: Time | None
    versions: dict[str, str]
    settings: dict[str, Any]
    readiness: dict[str, str]
    warnings: list[str]
    status: dict[str, Any]
    queues: dict[str, int]
    process: dict[str, Any]
    files: list[DebugFile]
    files_left_out: int
    tasks_total: int
    tasks: list[str]
    threads: list[str]
    log: list[str]
