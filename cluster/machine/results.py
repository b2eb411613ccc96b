"""What a command answers: a value, never an exception.

`Rejected` names the expected refusals; the API edge maps each to a status once.
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class Rejected(IntEnum):
    """Why a command changed nothing."""

    STALE_EPOCH = 1  # proposed by a deposed leader
    INTERNAL = 2  # a bug: counted and logged loudly
    UNKNOWN_JOB = 3
    STALE_ATTEMPT = 4
    NOT_READY = 5
    FINISHED = 6  # already completed, failed or cancelled
    NOT_DEAD = 7  # only a failed job can be retried
    CONFLICT = 8  # unique key or schedule id is taken
    KEY_MISMATCH = 9  # idempotency key seen with another request
    UNKNOWN_SCHEDULE = 10
    STALE_FIRE = 11  # this occurrence was launched already
    PAUSED = 12
    UNKNOWN_WORKER = 13
    UNDECODABLE = 14
    STALE_VERSION = 15  # the definition changed since it was read
    IN_USE = 16  # a schedule names this calendar
    UNKNOWN_CALENDAR = 17
    UNKNOWN_BACKFILL = 18
    ENDED = 19  # the schedule launched all it was allowed to
    FULL = 20  # a bound of the machine is reached


class Done(Struct, array_like=True, frozen=True, gc=False):
    """The command did what it says."""


DONE = Done()


class Submitted(Struct, array_like=True, frozen=True, gc=False):
    """`first`..`first+count-1` were created, unless `ids` tells them one by one (0: refused)."""

    first: int
    count: int
    ids: list[int] | None = None
    replayed: bool = False


class Settled(Struct, array_like=True, frozen=True, gc=False):
    """Everything was booked but the `refused` (job ids, stale or unknown)."""

    refused: list[int]


NONE_REFUSED = Settled([])


class PerJob(Struct, array_like=True, frozen=True, gc=False):
    """One code a job, in the order of the command: 0 or a `Rejected`."""

    codes: list[int]


class Scheduled(Struct, array_like=True, frozen=True, gc=False):
    schedule_id: str


class Fired(Struct, array_like=True, frozen=True, gc=False):
    """The first job that started of those on time; 0 when the overlap policy let none start yet."""

    job_id: int


class BackfillStarted(Struct, array_like=True, frozen=True, gc=False):
    backfill_id: int


class Registered(Struct, array_like=True, frozen=True, gc=False):
    worker_id: int


class Given(Struct, array_like=True, frozen=True, gc=False):
    """Those of the new jobs that the worker got; all others stay as they are."""

    job_ids: list[int]


Result = (
    Rejected
    | Done
    | Submitted
    | Settled
    | PerJob
    | Scheduled
    | Fired
    | BackfillStarted
    | Registered
    | Given
)
