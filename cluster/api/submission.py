"""Shared by all that changes something: proposing, idempotency keys, room in the queues."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

from aiohttp import web

from cluster.actors.services import Services
from cluster.actors.submissions import may_gather
from cluster.api.errors import ProblemError, refusal
from cluster.api.models import KEY_CHARACTERS_MAX
from cluster.api.routing import Header
from cluster.machine import views
from cluster.machine.commands import Command, JobGroup, SubmitJobs
from cluster.machine.results import Rejected, Result, Submitted

IDEMPOTENCY_KEY = Header(
    "Idempotency-Key",
    "At most 255 characters. A repetition with the same key and body answers what the first "
    "request did (header Idempotency-Replayed: true) and does nothing.",
)
KEY_TTL = Header("X-Quorate-Key-TTL", "Seconds for which the key is remembered.")
PREFER = Header("Prefer", "`return=minimal` answers first and last id instead of every one.")
REPLAYED = {"Idempotency-Replayed": "true"}


class RequestKey(NamedTuple):
    """An idempotency key with what it stands for; an empty `key` means there is none."""

    key: str = ""
    fingerprint: int = 0
    ttl_ms: int = 0


NO_KEY = RequestKey()


def request_key(request: web.Request, raw: bytes, services: Services) -> RequestKey:
    """The request's idempotency key. Raises ProblemError when a header is malformed."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return NO_KEY
    if not 0 < len(key) <= KEY_CHARACTERS_MAX or not key.isprintable():
        raise ProblemError(
            "validation", f"Idempotency-Key takes 1 to {KEY_CHARACTERS_MAX} printable characters"
        )
    fingerprint = fingerprint_of(f"{request.method} {request.path}", raw)
    return RequestKey(key, fingerprint, _ttl_ms(request, services))


def fingerprint_of(place: str, raw: bytes) -> int:
    """What a key stands for; the same body in another place is another request."""
    return zlib.crc32(raw, zlib.crc32(f"{place} ".encode()))


def _ttl_ms(request: web.Request, services: Services) -> int:
    maximum_s = services.settings.idempotency_ttl_seconds
    text = request.headers.get("X-Quorate-Key-TTL")
    if text is None:
        return round(maximum_s * 1000)
    try:
        wanted_s = float(text)
    except ValueError:
        wanted_s = 0.0
    if not 0 < wanted_s < float("inf"):
        raise ProblemError("validation", "X-Quorate-Key-TTL takes a positive number of seconds")
    return round(min(wanted_s, maximum_s) * 1000)


async def propose(services: Services, command: Command) -> Any:
    """The command's result. Raises ProblemError for a refusal of the whole command."""
    result: Result = await services.proposer.propose(command)
    if isinstance(result, Rejected):
        raise refusal(result)
    return result


async def submit(services: Services, groups: list[JobGroup], key: RequestKey) -> Submitted:
    """Create the jobs of all groups in one command, which others may share where they are few."""
    if not key.key and len(groups) == 1 and may_gather(groups[0]):
        result: Result = await services.submissions.submit(groups[0])
    else:
        result = await services.submissions.submit_alone(SubmitJobs(groups, *key))
    if isinstance(result, Rejected):
        raise refusal(result)
    assert isinstance(result, Submitted)
    return result


async def recall(services: Services, key: RequestKey) -> Submitted | None:
    """What the key answered before, for a request that would be refused by now.

    A repetition may come when its run_at has passed or the queue has filled up; it still gets its
    first answer. Asking is a submission of nothing: if the key is new it is forgotten at once.
    """
    if not key.key:
        return None
    probe = SubmitJobs([], key.key, key.fingerprint, 0)
    result: Result = await services.proposer.propose(probe)
    if isinstance(result, Submitted) and result.replayed and result.count + len(result.ids or ()):
        return result
    return None


def ids_of(result: Submitted) -> list[int]:
    """The ids of a submission, in its order; 0 stands for a refused unique key."""
    if result.ids is not None:
        return result.ids
    return list(range(result.first, result.first + result.count))


def room_problem(services: Services, queue: str, count: int) -> ProblemError | None:
    """Why `count` more pending jobs are not taken: no memory, or the queue is full."""
    vitals = services.vitals
    if vitals.memory.is_out and (reason := vitals.refusal(views.job_count(services.raft.state))):
        return ProblemError("memory_full", f"{reason} on the leader; nothing was applied")
    maximum = services.settings.queue_jobs_max
    pending = views.pending_in_queue(services.raft.state, queue)
    if pending + count <= maximum:
        return None
    return ProblemError(
        "queue_full",
        f"queue {queue!r} has {pending} pending jobs; with {count} more it would exceed its "
        f"maximum of {maximum}",
    )


def require_room(services: Services, queue: str, count: int) -> None:
    """Raises the problem when there is no room for `count` more jobs."""
    problem = room_problem(services, queue, count)
    if problem is not None:
        raise problem


def unique_conflict() -> ProblemError:
    return ProblemError(
        "conflict",
        "this unique_key is taken, by a live job or by one that ended within its "
        "unique_ttl_seconds",
        pointer="/unique_key",
    )
