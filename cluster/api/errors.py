"""Every way a request can be refused: one table of codes, one table from the machine's refusals.

Whatever goes wrong leaves the node as one RFC 9457 problem document with a stable `code`. Handlers
raise `ProblemError`; nobody else chooses a status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from cluster.actors.services import (
    DiskFull,
    LevelTooLow,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
)
from cluster.history import HistoryError
from cluster.machine.results import Rejected

PROBLEM_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:quorate:problem:"


class PointedError(Struct, frozen=True):
    """One offending place in the request body."""

    pointer: str
    detail: str


class Problem(Struct, kw_only=True):
    """RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str
    errors: list[PointedError] | UnsetType = UNSET
    leader: str | UnsetType | None = UNSET


class Kind(NamedTuple):
    """A row of the table; `retry_after_s` 0 means that repeating does not help by itself."""

    status: int
    title: str
    retry_after_s: int = 0


KINDS: dict[str, Kind] = {
    "invalid_json": Kind(400, "The body cannot be read"),
    "bad_request": Kind(400, "The request cannot be understood"),
    "validation": Kind(422, "The request is not valid"),
    "idempotency_mismatch": Kind(422, "The idempotency key was used for another request"),
    "cross_origin": Kind(403, "Pages of other origins may not call this API"),
    "not_found": Kind(404, "There is nothing here"),
    "unknown_job": Kind(404, "No such job"),
    "unknown_schedule": Kind(404, "No such schedule"),
    "unknown_calendar": Kind(404, "No such calendar"),
    "unknown_backfill": Kind(404, "No such backfill"),
    "unknown_worker": Kind(404, "No such worker"),
    "unknown_member": Kind(404, "No such member"),
    "method_not_allowed": Kind(405, "The resource does not know this method"),
    "stale_attempt": Kind(409, "The attempt is no longer the current one"),
    "not_cancellable": Kind(409, "The job has ended already"),
    "not_retryable": Kind(409, "The job has not failed"),
    "conflict": Kind(409, "It exists already"),
    "in_use": Kind(409, "Something still needs it"),
    "ended": Kind(409, "The schedule has ended"),
    "already_member": Kind(409, "The node is a member already"),
    "change_pending": Kind(409, "Another change of members is under way", 1),
    "membership_refused": Kind(409, "The members stay as they are"),
    "feature_level": Kind(409, "Not all nodes of the cluster can do that yet"),
    "upgrade_refused": Kind(409, "The feature level stays as it is"),
    "transfer_failed": Kind(409, "Leadership stayed where it was"),
    "history_lacking": Kind(409, "The history of this node lacks it, too"),
    "version_mismatch": Kind(412, "It changed meanwhile"),
    "payload_too_large": Kind(413, "Too large"),
    "unsupported_encoding": Kind(415, "The body must come uncompressed"),
    "upgrade_required": Kind(426, "This address speaks WebSocket"),
    "queue_full": Kind(429, "The queue is full", 1),
    "internal": Kind(500, "This is a bug"),
    "import_unavailable": Kind(501, "The leader cannot import holidays"),
    "no_quorum": Kind(503, "The cluster has no leader at the moment", 1),
    "not_leader": Kind(503, "Another node leads"),
    "handed_over": Kind(503, "Leadership was handed over, nothing else was done", 1),
    "not_ready": Kind(503, "This node is not ready", 1),
    "history_unavailable": Kind(503, "Finished jobs cannot be read at the moment", 1),
    "overloaded": Kind(503, "Too much is waiting", 1),
    "memory_full": Kind(503, "The leader is short of memory", 5),
    "connections_full": Kind(503, "This node has too many connections", 1),
    "backup_failed": Kind(503, "There is no backup now"),
    "disk_full": Kind(503, "The disks of the cluster are full", 5),
    # Not 503, which promises that nothing was applied: proxies repeat such requests by themselves.
    "outcome_unknown": Kind(504, "The request may or may not have been applied", 1),
}

# Refusals that are nobody's fault but the moment's: the leader changed under the request.
REJECTED: dict[Rejected, tuple[str, str]] = {
    Rejected.STALE_EPOCH: ("no_quorum", "leadership changed; nothing was applied"),
    Rejected.INTERNAL: ("internal", "the command was refused by a bug; nothing was applied"),
    Rejected.UNDECODABLE: ("internal", "the cluster could not read the command"),
    Rejected.UNKNOWN_JOB: ("unknown_job", "no job has this id"),
    Rejected.STALE_ATTEMPT: ("stale_attempt", "another attempt runs now, or none"),
    Rejected.NOT_READY: ("conflict", "the job is not ready"),
    Rejected.FINISHED: ("not_cancellable", "the job is finished already"),
    Rejected.NOT_DEAD: (
        "not_retryable",
        "only a job among the dead letters can be retried; clone any other",
    ),
    Rejected.CONFLICT: ("conflict", "the key or id is taken"),
    Rejected.KEY_MISMATCH: (
        "idempotency_mismatch",
        "this Idempotency-Key came with another request before",
    ),
    Rejected.UNKNOWN_SCHEDULE: ("unknown_schedule", "no schedule has this id"),
    Rejected.STALE_FIRE: ("conflict", "this occurrence was launched already"),
    Rejected.PAUSED: ("conflict", "the schedule is paused"),
    Rejected.UNKNOWN_WORKER: ("unknown_worker", "no worker has this id"),
    Rejected.STALE_VERSION: ("version_mismatch", "it was changed since you read it: read it again"),
    Rejected.IN_USE: ("in_use", "a schedule uses this calendar: change the schedule first"),
    Rejected.UNKNOWN_CALENDAR: ("unknown_calendar", "no calendar has this name"),
    Rejected.UNKNOWN_BACKFILL: ("unknown_backfill", "no backfill in progress has this number"),
    Rejected.ENDED: ("ended", "the schedule launched all the runs it is allowed to"),
    Rejected.FULL: ("conflict", "too many of these exist or wait already"),
}

_encode = msgspec.json.Encoder().encode


class ProblemError(Exception):
    """A refusal on its way to the client."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        pointer: str | None = None,
        leader: str | UnsetType | None = UNSET,
        retry_after_s: int | None = None,
        allow: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.pointer = pointer
        self.leader = leader
        self.allow = allow
        self.headers = headers or {}
        self.retry_after_s = KINDS[code].retry_after_s if retry_after_s is None else retry_after_s

    def under(self, prefix: str) -> ProblemError:
        """The same refusal of something that stands at `prefix` in a larger body."""
        pointer = None if self.pointer is None else prefix + self.pointer
        return ProblemError(self.code, self.detail, pointer=pointer)

    def response(self, request: web.BaseRequest) -> web.Response:
        status, headers, body = self.parts(request.path)
        return web.Response(status=status, body=body, headers=headers)

    def parts(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to a request for `path`."""
        kind = KINDS[self.code]
        problem = Problem(
            type=TYPE_PREFIX + self.code,
            title=kind.title,
            status=kind.status,
            detail=self.detail,
            code=self.code,
            instance=path,
            leader=self.leader,
        )
        if self.pointer is not None:
            problem.errors = [PointedError(self.pointer, self.detail)]
        headers = {"Content-Type": PROBLEM_TYPE, **self.headers}
        if self.retry_after_s:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.allow is not None:
            headers["Allow"] = self.allow
        return kind.status, headers, _encode(problem)


def refusal(rejected: Rejected, pointer: str | None = None) -> ProblemError:
    """The problem that a refusal of the machine is."""
    code, detail = REJECTED[rejected]
    return ProblemError(code, detail, pointer=pointer)


def problem_of(error: BaseException) -> ProblemError | None:
    """The problem that an exception of the layers below is; None for a bug."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, NotLeader):
        return no_leader()
    if isinstance(error, DiskFull):
        return ProblemError("disk_full", f"{error}; nothing was applied, free space there")
    if isinstance(error, Overloaded):
        return ProblemError("overloaded", str(error), retry_after_s=error.retry_after_s)
    if isinstance(error, OutcomeUnknown):
        return outcome_unknown()
    if isinstance(error, LevelTooLow):
        return ProblemError("feature_level", str(error))
    if isinstance(error, HistoryError):
        return ProblemError("history_unavailable", str(error))
    if isinstance(error, web.HTTPException):
        return _of_http(error)
    return None


def _of_http(error: web.HTTPException) -> ProblemError:
    if error.status == 404:
        return ProblemError("not_found", "no resource has this path; see /docs")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return ProblemError("method_not_allowed", f"allowed here: {allowed}", allow=allowed)
    if error.status == 413:
        return ProblemError(
            "payload_too_large", "the body is larger than request_max_bytes of this cluster"
        )
    return ProblemError("bad_request", error.reason or "bad request")


def no_leader() -> ProblemError:
    return ProblemError("no_quorum", "no leader is known; nothing was applied, try again")


def outcome_unknown() -> ProblemError:
    return ProblemError(
        "outcome_unknown",
        "the answer got lost: repeat the request with the same Idempotency-Key",
    )
