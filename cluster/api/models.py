"""What requests say. Unknown fields are refused, so that a typing error is not silently a default.

Limits of single values stand in the types, where decoder and OpenAPI document both read them; what
several fields say together is judged in `intake`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from cluster.api.routing import ReadQuery

LABEL_CHARACTERS_MAX = 128
KEY_CHARACTERS_MAX = 255
TAGS_MAX = 32
IDS_MAX = 10_000
WAIT_SECONDS_MAX = 300.0
POLL_SECONDS_MAX = 60.0
YEAR_SECONDS = 31_536_000.0

# The machine gives the numbered form to schedules without a name, and numbers are job ids.
SCHEDULE_ID = r"^(?!s?\d+$)[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"

Label = Annotated[str, Meta(min_length=1, max_length=LABEL_CHARACTERS_MAX)]
Tags = Annotated[
    list[Label], Meta(max_length=TAGS_MAX, description="For filters; printable texts.")
]
TaskName = Annotated[
    Label,
    Meta(description="What to run: a task that workers offer, or simulate, command, http."),
]
QueueName = Annotated[Label, Meta(description="Only workers that serve this queue get the job.")]
Priority = Annotated[
    Annotated[int, Meta(ge=1, le=10)] | Literal["critical", "high", "normal", "low"],
    Meta(description="1 is the most urgent, 10 the least; critical=1, high=3, normal=5, low=8."),
]
Seconds = Annotated[float, Meta(gt=0, le=10 * YEAR_SECONDS)]
Delay = Annotated[
    Annotated[float, Meta(ge=0, le=10 * YEAR_SECONDS)],
    Meta(description="Seconds from now until the job is due."),
]
Instant = Annotated[datetime, Meta(tz=True)]
Retries = Annotated[
    Annotated[int, Meta(ge=0, le=100)],
    Meta(description="Further attempts after the first one fails."),
]
UniqueKey = Annotated[
    Annotated[str, Meta(min_length=1, max_length=KEY_CHARACTERS_MAX)],
    Meta(description="At most one live job has this key; see on_conflict."),
]
CommandLine = Annotated[
    Annotated[str, Meta(min_length=1)] | Annotated[list[str], Meta(min_length=1)],
    Meta(description="Shorthand: a shell line or an argument list; runs as task `command`."),
]
Payload = Annotated[Raw | UnsetType, Meta(description="Any JSON value; the task's input.")]
Timeout = Annotated[Seconds, Meta(description="Limit of one execution.")]
QueueTimeout = Annotated[
    Seconds, Meta(description="The job fails when nobody started it this long after it was due.")
]
TotalTimeout = Annotated[
    Seconds, Meta(description="Limit of the job's whole life, waiting and all attempts included.")
]
AttemptNumber = Annotated[
    int, Meta(ge=1, le=2**31, description="Of the assignment; an older one is refused.")
]
JobId = Annotated[str, Meta(min_length=1, max_length=20)] | int


class RetryRequest(Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """How failed attempts are spaced."""

    strategy: Literal["exponential", "linear", "fibonacci", "fixed"] = "exponential"
    base_seconds: Seconds = 1.0
    max_seconds: Seconds = 300.0
    jitter: bool = True


class JobRequest(Struct, forbid_unknown_fields=True, gc=False):
    """One job. Give `delay_seconds`, `run_at` or `schedule`, or none of them to run it now."""

    name: TaskName | UnsetType = UNSET
    payload: Payload = UNSET
    queue: QueueName = "default"
    priority: Priority = 5
    delay_seconds: Delay | None = None
    run_at: Instant | None = None
    schedule: Annotated[
        str | None, Meta(description="Cron expression: creates a schedule instead of a job.")
    ] = None
    timezone: Annotated[
        str | None, Meta(description="Of `schedule`: an IANA name; left out, UTC.")
    ] = None
    command: CommandLine | None = None
    max_retries: Retries = 3
    retry: RetryRequest | None = None
    timeout_seconds: Timeout | None = None
    expires_at: Instant | None = None
    queue_timeout_seconds: QueueTimeout | None = None
    total_timeout_seconds: TotalTimeout | None = None
    unique_key: UniqueKey | None = None
    on_conflict: Annotated[
        Literal["reject", "return", "replace"],
        Meta(description="When unique_key is taken: 409, the job that has it, or a new one."),
    ] = "return"
    unique_ttl_seconds: (
        Annotated[
            float,
            Meta(
                ge=0,
                le=10 * YEAR_SECONDS,
                description="How long unique_key stays taken once the job is finished; 0 frees it "
                "at once. Default: the node's idempotency_ttl_seconds, a day.",
            ),
        ]
        | None
    ) = None
    tags: Tags | None = None


class BatchRequest(Struct, forbid_unknown_fields=True):
    """Many jobs in one object; a bare array says the same."""

    jobs: list[JobRequest]


class JobChangesRequest(Struct, forbid_unknown_fields=True):
    """What a retry or clone changes; what is left out stays."""

    payload: Payload = UNSET
    queue: QueueName | None = None
    priority: Priority | None = None
    max_retries: Retries | None = None
    timeout_seconds: Timeout | None = None
    delay_seconds: Delay | None = None


class JobFilterRequest(Struct, forbid_unknown_fields=True):
    """Jobs that fit all of these."""

    status: Literal["pending", "running", "completed", "failed", "cancelled", "skipped"] | None = (
        None
    )
    queue: Label | None = None
    name: Label | None = None
    tag: Label | None = None


class BulkRequest(Struct, forbid_unknown_fields=True):
    """Exactly one of `ids` and `filter`; a filter works on at most 10,000 jobs a request."""

    ids: Annotated[list[JobId], Meta(max_length=IDS_MAX)] | None = None
    filter: JobFilterRequest | None = None


class ReplayRequest(JobChangesRequest, forbid_unknown_fields=True):
    """Dead letters to bring back: `ids` or `all`, optionally changed."""

    ids: Annotated[list[JobId], Meta(max_length=IDS_MAX)] | None = None
    all: bool = False


class PurgeRequest(Struct, forbid_unknown_fields=True):
    """Dead letters to forget: `ids` or `all`."""

    ids: Annotated[list[JobId], Meta(max_length=IDS_MAX)] | None = None
    all: bool = False


class TransferRequest(Struct, forbid_unknown_fields=True):
    """`to`: the id of the member that shall lead; left out, the most advanced one."""

    to: str | None = None


class UpgradeRequest(Struct, forbid_unknown_fields=True):
    """`to`: the feature level; left out, the highest that any node's release knows. `dry_run`:
    only say whether it could be done."""

    to: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    dry_run: bool = False


class MemberRequest(Struct, forbid_unknown_fields=True):
    """`id`: the host:port under which the other nodes reach it (its `advertise`). A `learner` keeps
    a copy and never votes."""

    id: Annotated[str, Meta(min_length=3, max_length=300)]
    learner: bool = False


class WorkerRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """A worker that polls."""

    name: Annotated[str, Meta(max_length=LABEL_CHARACTERS_MAX)] = ""
    slots: Annotated[int, Meta(ge=1, le=10_000)] = 1
    queues: Annotated[list[Label], Meta(min_length=1, max_length=1_000)] = field(
        default_factory=lambda: ["default"]
    )
    tasks: Annotated[
        list[Label],
        Meta(min_length=1, max_length=10_000, description="Only jobs of these names come."),
    ]
    labels: dict[str, str] = {}


class PollRequest(Struct, forbid_unknown_fields=True):
    """Take up to `max` jobs; wait up to `wait` seconds for the first one."""

    max: Annotated[int, Meta(ge=1, le=1_000)] = 1
    wait: Annotated[float, Meta(ge=0, le=POLL_SECONDS_MAX)] = 0.0


class HeldAttempt(Struct, forbid_unknown_fields=True):
    job_id: JobId
    attempt: AttemptNumber


class HeartbeatRequest(Struct, forbid_unknown_fields=True):
    """The attempts that the worker is at; the answer names those it shall stop."""

    running: list[HeldAttempt] = []


class CompleteRequest(Struct, forbid_unknown_fields=True):
    attempt: AttemptNumber
    output: Annotated[Raw | UnsetType, Meta(description="Any JSON value.")] = UNSET
    worker_id: str | None = None


class FailRequest(Struct, forbid_unknown_fields=True):
    attempt: AttemptNumber
    error: Annotated[str, Meta(max_length=10_000)]
    error_type: Annotated[str, Meta(max_length=LABEL_CHARACTERS_MAX)] = "error"
    retryable: bool = True
    worker_id: str | None = None


class ProgressRequest(Struct, forbid_unknown_fields=True):
    attempt: AttemptNumber
    fraction: Annotated[float, Meta(ge=0, le=1)] | None = None
    message: Annotated[str, Meta(max_length=1_000)] | None = None


class ReleaseRequest(Struct, forbid_unknown_fields=True):
    attempt: AttemptNumber
    worker_id: str | None = None


class WaitQuery(ReadQuery, forbid_unknown_fields=True, frozen=True):
    """`wait`: seconds to wait for the job to finish."""

    wait: Annotated[float, Meta(ge=0, le=WAIT_SECONDS_MAX)] = 0.0


class PageQuery(ReadQuery, forbid_unknown_fields=True, frozen=True):
    """`cursor` is the `next_cursor` of the page before."""

    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: Annotated[str, Meta(max_length=256)] = ""


class WorkersQuery(ReadQuery, forbid_unknown_fields=True, frozen=True):
    """`cursor` is the `next_cursor` of the page before. So many at once that few have more."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 500
    cursor: Annotated[str, Meta(max_length=256)] = ""


class DeadQuery(PageQuery, forbid_unknown_fields=True, frozen=True):
    queue: str = ""
    name: str = ""
    tag: str = ""


class JobsQuery(DeadQuery, forbid_unknown_fields=True, frozen=True):
    status: Literal["", "pending", "running", "completed", "failed", "cancelled", "skipped"] = ""
