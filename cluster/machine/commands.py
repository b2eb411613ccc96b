"""Commands: orders that the leader puts into the log, already decided.

A command carries answers (`retry_at_ms`, `next_fire_ms`, ids chosen by the dispatcher), never
formulas, so policies can change between releases while old logs replay exactly. Tags are
append-only and fields are appended with defaults; `tests/machine/test_golden_log.py` holds that.
Which of them a cluster of two releases may use stands in `levels`.

Hot commands are columnar: one command books a thousand jobs.

What can be judged without the state is judged here, by the decoder: bounds of numbers and columns
of one length. A reducer that runs may rely on both.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from operator import lt
from typing import Annotated, cast

import msgspec
from msgspec import Meta, Raw, Struct

from cluster.machine.model import JobSpec, Overlap, Priority, WorkerSpec
from cluster.plan import Count, Missed, Ms, Plan

ON_CONFLICT_RETURN, ON_CONFLICT_REJECT, ON_CONFLICT_REPLACE = 0, 1, 2
INT64_MAX = (1 << 63) - 1
BACKFILL_NOMINALS_MAX = 10_000
CALENDAR_DAYS_MAX = 10_000


def _same_length(column: Sized, *others: Sized | None) -> None:
    for other in others:
        if other is not None and len(other) != len(column):
            raise ValueError(f"columns of {len(column)} and {len(other)} rows")


def _shared_out(worker_ids: Sized, counts: Sequence[int], job_ids: Sized) -> None:
    _same_length(worker_ids, counts)
    if sum(counts) != len(job_ids):
        raise ValueError(f"shares of {sum(counts)} jobs for {len(job_ids)}")


def is_increasing(numbers: Sequence[int]) -> bool:
    return all(map(lt, numbers, numbers[1:]))


class JobGroup(Struct, array_like=True, frozen=True, gc=False):
    """Like jobs, in the order of the request. Times are epoch ms, 0 means none (now)."""

    spec: JobSpec
    payloads: list[bytes]
    run_at_ms: Ms = 0
    expires_at_ms: Ms = 0
    deadline_ms: Ms = 0  # whole life, all attempts
    unique_keys: list[str] | None = None
    on_conflict: int = ON_CONFLICT_RETURN
    unique_ttl_ms: Ms = 0  # how long a unique key outlives its job

    def __post_init__(self) -> None:
        if self.unique_keys is not None:
            _same_length(self.payloads, self.unique_keys)


class SubmitJobs(Struct, array_like=True, frozen=True, gc=False, tag=1):
    """Create jobs. With a `request_key`, a second submission answers what the first did."""

    groups: list[JobGroup]
    request_key: str = ""
    fingerprint: int = 0
    request_ttl_ms: Ms = 0


class AssignJobs(Struct, array_like=True, frozen=True, gc=False, tag=2):
    """Give ready jobs to a worker; each gets its next attempt number."""

    worker_id: int
    job_ids: list[int]


class CompleteJobs(Struct, array_like=True, frozen=True, gc=False, tag=3):
    """Book successes. `worker_id` 0 accepts whoever holds the attempt."""

    worker_id: int
    job_ids: list[int]
    attempts: list[int]
    outputs: list[bytes | None] | None = None
    logs: list[str | None] | None = None

    def __post_init__(self) -> None:
        _same_length(self.job_ids, self.attempts, self.outputs, self.logs)


class JobFailure(Struct, array_like=True, frozen=True, gc=False):
    """One failed attempt and the decision: `retry_at_ms` > 0 retries then, 0 is final."""

    job_id: int
    attempt: int
    error_type: str
    error_message: str
    retry_at_ms: Ms
    log: str = ""
    outcome: str = "failed"


class FailJobs(Struct, array_like=True, frozen=True, gc=False, tag=4):
    worker_id: int
    failures: list[JobFailure]


class ReleaseJobs(Struct, array_like=True, frozen=True, gc=False, tag=5):
    """A worker hands jobs back unfinished; no attempt is consumed."""

    worker_id: int
    job_ids: list[int]
    attempts: list[int]

    def __post_init__(self) -> None:
        _same_length(self.job_ids, self.attempts)


class CancelJobs(Struct, array_like=True, frozen=True, gc=False, tag=6):
    job_ids: list[int]
    reason: str = ""


class JobChanges(Struct, array_like=True, frozen=True, gc=False):
    """Overrides for a retry; None keeps what the job had."""

    payload: bytes | None = None
    queue: str | None = None
    priority: Priority | None = None
    max_retries: Count | None = None
    timeout_ms: Ms | None = None


class RetryJobs(Struct, array_like=True, frozen=True, gc=False, tag=7):
    """Bring dead jobs back with a fresh allowance of retries. `run_at_ms` 0 means now."""

    job_ids: list[int]
    run_at_ms: Ms = 0
    changes: JobChanges = JobChanges()


class PurgeDead(Struct, array_like=True, frozen=True, gc=False, tag=8):
    job_ids: list[int]


class PutSchedule(Struct, array_like=True, frozen=True, gc=False, tag=9):
    """Create a schedule, or with `replace` set its definition. Empty id: the machine names it.

    Without a `plan`, as the first release wrote it, the plan is that cron line or interval."""

    schedule_id: str
    spec: JobSpec
    payload: bytes
    cron: str
    every_ms: Ms
    next_fire_ms: Ms
    replace: bool = False
    queue_timeout_ms: Ms = 0
    total_timeout_ms: Ms = 0
    plan: Plan | None = None
    overlap: Overlap = "allow_all"
    max_executions: Count = 0  # 0: no bound
    next_nominal_ms: Ms = 0  # 0: the fire time
    paused: bool = False
    note: str = ""  # of the pause
    expected_version: Count = 0  # 0: whatever it is
    reason: str = ""


class PauseSchedule(Struct, array_like=True, frozen=True, gc=False, tag=10):
    schedule_id: str
    note: str = ""


class ResumeSchedule(Struct, array_like=True, frozen=True, gc=False, tag=11):
    """`missed` are the occurrences of the pause."""

    schedule_id: str
    next_fire_ms: Ms
    next_nominal_ms: Ms = 0
    missed: list[Missed] = []


class FireSchedule(Struct, array_like=True, frozen=True, gc=False, tag=12):
    """Launch what is due, once: refused unless `expected_fire_ms` is still the next one and
    the next occurrence comes after it (`next_fire_ms` 0: never again, `ended` says why).

    `launches` are on time and offered at once (None: the expected one), `late` ones wait in the
    backlog, `missed` ones are only written down. All are nominal times."""

    schedule_id: str
    expected_fire_ms: Ms
    next_fire_ms: Ms
    skipped: Count = 0  # the first release: occurrences older than the catch-up window
    next_nominal_ms: Ms = 0
    launches: list[Ms] | None = None
    late: list[Ms] = []
    missed: list[Missed] = []
    version: Count = 0  # of the definition that was evaluated; 0: any
    ended: str = ""


class TriggerSchedule(Struct, array_like=True, frozen=True, gc=False, tag=13):
    """Run now, apart from the plan, perhaps with another payload or queue."""

    schedule_id: str
    changes: JobChanges = JobChanges()
    overlap: Overlap = "allow_all"


class DeleteSchedule(Struct, array_like=True, frozen=True, gc=False, tag=14):
    schedule_id: str


class RegisterWorker(Struct, array_like=True, frozen=True, gc=False, tag=15):
    spec: WorkerSpec


class DrainWorker(Struct, array_like=True, frozen=True, gc=False, tag=16):
    worker_id: int


class RemoveWorker(Struct, array_like=True, frozen=True, gc=False, tag=17):
    """A worker is gone. Said goodbye (`lost` False): its jobs return, no attempt consumed.
    Lost: each of its jobs consumed an attempt and is retried at once or dead."""

    worker_id: int
    lost: bool = False
    reason: str = ""


class UpdateWorker(Struct, array_like=True, frozen=True, gc=False, tag=18):
    """A known worker came back with a new offer."""

    worker_id: int
    spec: WorkerSpec


class StartBackfill(Struct, array_like=True, frozen=True, gc=False, tag=19):
    """Run occurrences of the past, under an overlap policy of their own. Without a rate the next
    one starts as there is room for it; with `per_minute` one is offered at each tick."""

    schedule_id: str
    nominals: list[Ms]
    overlap: Overlap
    per_minute: Count = 0
    note: str = ""

    def __post_init__(self) -> None:
        if not 0 < len(self.nominals) <= BACKFILL_NOMINALS_MAX:
            raise ValueError(f"{len(self.nominals)} nominal times are none or too many")
        if not is_increasing(self.nominals):
            raise ValueError("nominal times must increase")


class StopBackfill(Struct, array_like=True, frozen=True, gc=False, tag=20):
    schedule_id: str
    backfill_id: int


class PutCalendar(Struct, array_like=True, frozen=True, gc=False, tag=21):
    """Create a calendar or set its days (since 1970-01-01, local dates), each with a label."""

    name: str
    days: list[Count]
    labels: list[str]
    description: str = ""
    source: str = ""
    expected_version: Count = 0

    def __post_init__(self) -> None:
        _same_length(self.days, self.labels)
        if len(self.days) > CALENDAR_DAYS_MAX or not is_increasing(self.days):
            raise ValueError("the days of a calendar are too many or do not increase")


class DeleteCalendar(Struct, array_like=True, frozen=True, gc=False, tag=22):
    name: str


class ReplanSchedule(Struct, array_like=True, frozen=True, gc=False, tag=23):
    """The same definition names other instants: its calendar or the zone's rules changed."""

    schedule_id: str
    version: Count
    expected_fire_ms: Ms
    next_fire_ms: Ms
    next_nominal_ms: Ms
    reason: str
    missed: list[Missed] = []


class SetReleases(Struct, array_like=True, frozen=True, gc=False, tag=24):
    """What all plans were computed with."""

    releases: str


class AssignNew(Struct, array_like=True, frozen=True, gc=False, tag=25):
    """Give a worker the first `count` jobs of the last submission of this batch, whose ids nobody
    knows before they are there; the next one goes on behind them."""

    worker_id: int
    count: Count


class AssignMany(Struct, array_like=True, frozen=True, gc=False, tag=26):
    """`AssignJobs` for several workers: the first `counts[0]` jobs are the first one's, and so on.
    All jobs of a worker that takes none are refused."""

    worker_ids: list[int]
    counts: list[Count]
    job_ids: list[int]

    def __post_init__(self) -> None:
        _shared_out(self.worker_ids, self.counts, self.job_ids)


class CompleteMany(Struct, array_like=True, frozen=True, gc=False, tag=27):
    """`CompleteJobs` of several workers: the first `counts[0]` jobs are what the first one says,
    and so on. Two of them may name the same job."""

    worker_ids: list[int]
    counts: list[Count]
    job_ids: list[int]
    attempts: list[int]
    outputs: list[bytes | None] | None = None
    logs: list[str | None] | None = None

    def __post_init__(self) -> None:
        _shared_out(self.worker_ids, self.counts, self.job_ids)
        _same_length(self.job_ids, self.attempts, self.outputs, self.logs)


class RaiseLevel(Struct, array_like=True, frozen=True, gc=False, tag=28):
    """All members know this feature level: from now on what it brought may be used."""

    level: Count


Command = (
    SubmitJobs
    | AssignJobs
    | CompleteJobs
    | FailJobs
    | ReleaseJobs
    | CancelJobs
    | RetryJobs
    | PurgeDead
    | PutSchedule
    | PauseSchedule
    | ResumeSchedule
    | FireSchedule
    | TriggerSchedule
    | DeleteSchedule
    | RegisterWorker
    | DrainWorker
    | RemoveWorker
    | UpdateWorker
    | StartBackfill
    | StopBackfill
    | PutCalendar
    | DeleteCalendar
    | ReplanSchedule
    | SetReleases
    | AssignNew
    | AssignMany
    | CompleteMany
    | RaiseLevel
)


class Unreadable(Struct, frozen=True, gc=False):
    """Stands in a decoded batch for a command that breaks the rules above; never encoded."""

    why: str


class Batch(Struct, array_like=True, frozen=True, gc=False):
    """One log entry. `epoch` is the proposing leader's Raft term; `now_ms` its clock."""

    epoch: Annotated[int, Meta(ge=0, le=INT64_MAX)]
    now_ms: Ms
    commands: list[Command]


class _RawBatch(Struct, array_like=True, frozen=True, gc=False):
    epoch: Annotated[int, Meta(ge=0, le=INT64_MAX)]
    now_ms: Ms
    commands: list[Raw]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Batch)
_raw_decoder = msgspec.msgpack.Decoder(_RawBatch)
_command_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


def encode_batch(batch: Batch) -> bytes:
    return _encoder.encode(batch)


def decode_batch(data: bytes) -> Batch:
    """Raises msgspec.DecodeError (or its subclass ValidationError) for anything not a batch.

    One command that cannot be read does not hurt its neighbours: it becomes an `Unreadable`."""
    try:
        return _decoder.decode(data)
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return _decode_one_by_one(data)


def _decode_one_by_one(data: bytes) -> Batch:
    try:
        batch = _raw_decoder.decode(data)
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply") from error
    return Batch(
        batch.epoch, batch.now_ms, [cast(Command, _decode_one(raw)) for raw in batch.commands]
    )


def _decode_one(raw: Raw) -> Command | Unreadable:
    try:
        return _command_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Unreadable(str(error))
