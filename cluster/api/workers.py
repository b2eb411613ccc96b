"""/v1/workers and the results of attempts: the plain-HTTP twin of the worker stream.

For workers in other languages, and for shells: register, poll, report. A worker that is unknown
(lost, or another leader's) registers again.
"""

from __future__ import annotations

from aiohttp import web
from msgspec import UNSET, Raw

from cluster.actors.services import Assignment, AttemptError, Services
from cluster.api.answers import (
    AssignmentAnswer,
    AttemptAnswer,
    HeartbeatAnswer,
    PollAnswer,
    RegisteredAnswer,
    WorkerAnswer,
    WorkersAnswer,
)
from cluster.api.errors import ProblemError
from cluster.api.lookup import (
    decode_cursor,
    encode_cursor,
    parse_job_id,
    parse_worker_id,
    unknown_job,
)
from cluster.api.models import (
    CompleteRequest,
    FailRequest,
    HeartbeatRequest,
    PollRequest,
    ProgressRequest,
    ReleaseRequest,
    WorkerRequest,
    WorkersQuery,
)
from cluster.api.render import time_text
from cluster.api.routing import Call, Empty, Query, Routes, respond
from cluster.machine import views
from cluster.machine.model import WorkerSpec
from cluster.machine.views import WorkerView

routes = Routes("workers")

STALE = ("unknown_job", "stale_attempt")
# What is ready is assigned through the log; a poll that would not wait for that never gets a job.
POLL_SECONDS_MIN = 0.1


def unknown_worker(worker_id: int) -> ProblemError:
    return ProblemError(
        "unknown_worker",
        f"no worker has the id w{worker_id}; a worker that had it must register again",
    )


def worker_answer(services: Services, view: WorkerView) -> WorkerAnswer:
    """A worker as this node knows it; liveness is known to the leader only."""
    text_id, spec = f"w{view.id}", view.spec
    seen_ms = services.desk.last_seen_ms(view.id)
    if view.draining:
        status = "draining"
    elif seen_ms is not None and not services.desk.is_connected(view.id):
        status = "lost"
    else:
        status = "active"
    return WorkerAnswer(
        worker_id=text_id,
        id=text_id,
        name=spec.name,
        status=status,  # type: ignore[arg-type]
        slots=spec.slots,
        running=len(view.running),
        running_jobs=[str(job_id) for job_id in view.running],
        queues=spec.queues,
        tasks=spec.tasks,
        labels=spec.labels,
        last_seen_at=time_text(seen_ms or 0),
        registered_at=time_text(view.registered_ms),
        address=spec.address or None,
        protocol=spec.protocol,
    )


def find_worker(services: Services, worker_id: int) -> WorkerView:
    """Raises unknown_worker."""
    view = views.worker(services.raft.state, worker_id)
    if view is None:
        raise unknown_worker(worker_id)
    return view


@routes.add(
    "GET",
    "/v1/workers",
    "List workers in the order in which they came",
    query=WorkersQuery,
    answer=WorkersAnswer,
)
async def list_workers(call: Call[None, WorkersQuery]) -> WorkersAnswer:
    limit, after_id = call.query.limit, decode_cursor(call.query.cursor)
    found = views.workers(call.services.raft.state, after_id, limit + 1)
    return WorkersAnswer(
        [worker_answer(call.services, view) for view in found[:limit]],
        encode_cursor(found[limit - 1].id) if len(found) > limit else None,
    )


@routes.add(
    "GET",
    "/v1/workers/{worker_id}",
    "Show a worker",
    answer=WorkerAnswer,
    problems=("unknown_worker",),
)
async def get_worker(call: Call[None, Query]) -> WorkerAnswer:
    view = find_worker(call.services, parse_worker_id(call.path("worker_id")))
    return worker_answer(call.services, view)


@routes.add(
    "POST",
    "/v1/workers/{worker_id}/drain",
    "Give a worker nothing more; it finishes and leaves",
    body=Empty,
    body_optional=True,
    answer=WorkerAnswer,
    problems=("unknown_worker",),
)
async def drain_worker(call: Call[Empty, Query]) -> WorkerAnswer:
    worker_id = parse_worker_id(call.path("worker_id"))
    if not await call.services.desk.drain(worker_id):
        raise unknown_worker(worker_id)
    return worker_answer(call.services, find_worker(call.services, worker_id))


@routes.add(
    "DELETE",
    "/v1/workers/{worker_id}",
    "Deregister a worker; what it runs goes to others",
    status=204,
    problems=("unknown_worker",),
)
async def remove_worker(call: Call[None, Query]) -> None:
    worker_id = parse_worker_id(call.path("worker_id"))
    if not await call.services.desk.leave(worker_id):
        raise unknown_worker(worker_id)


@routes.add(
    "POST",
    "/v1/workers",
    "Register a worker that polls",
    body=WorkerRequest,
    answer=RegisteredAnswer,
    status=201,
    problems=("validation",),
)
async def register_worker(call: Call[WorkerRequest, Query]) -> web.Response:
    request, services = call.body, call.services
    ttl_s = services.settings.worker_ttl_seconds
    spec = WorkerSpec(
        request.name or "poll",
        request.slots,
        tuple(request.queues),
        tuple(request.tasks),
        request.labels,
        round(ttl_s * 1000),
        call.request.remote or "",
        "poll",
    )
    worker_id = f"w{await services.polls.register(spec)}"
    location = {"Location": f"/v1/workers/{worker_id}"}
    return respond(RegisteredAnswer(worker_id, ttl_s), 201, location)


def assignment_answer(job: Assignment) -> AssignmentAnswer:
    return AssignmentAnswer(
        str(job.job_id),
        job.attempt,
        job.name,
        job.queue,
        Raw(job.payload),
        job.timeout_ms / 1000,
        time_text(job.deadline_ms),
        job.failures,
        job.max_retries,
    )


@routes.add(
    "POST",
    "/v1/workers/{worker_id}/poll",
    "Take jobs, waiting for the first one if there is none",
    body=PollRequest,
    body_optional=True,
    answer=PollAnswer,
    patience_s=90.0,
    problems=("unknown_worker",),
)
async def poll(call: Call[PollRequest, Query]) -> PollAnswer:
    worker_id = parse_worker_id(call.path("worker_id"))
    try:
        wait_s = max(call.body.wait, POLL_SECONDS_MIN)
        jobs = await call.services.polls.poll(worker_id, call.body.max, wait_s)
    except KeyError:
        raise unknown_worker(worker_id) from None
    return PollAnswer([assignment_answer(job) for job in jobs])


@routes.add(
    "POST",
    "/v1/workers/{worker_id}/heartbeat",
    "Say that the worker lives and what it runs",
    body=HeartbeatRequest,
    body_optional=True,
    answer=HeartbeatAnswer,
    problems=("unknown_worker",),
)
async def heartbeat(call: Call[HeartbeatRequest, Query]) -> HeartbeatAnswer:
    worker_id = parse_worker_id(call.path("worker_id"))
    running = [(parse_job_id(held.job_id), held.attempt) for held in call.body.running]
    try:
        cancel, stop, drain = await call.services.polls.heartbeat(worker_id, running)
    except KeyError:
        raise unknown_worker(worker_id) from None
    return HeartbeatAnswer(_attempt_answers(cancel), _attempt_answers(stop), drain)


def _attempt_answers(attempts: list[tuple[int, int]]) -> list[AttemptAnswer]:
    return [AttemptAnswer(str(job_id), attempt) for job_id, attempt in attempts]


def _holder(worker_id: str | None) -> int:
    """0 accepts whoever holds the attempt."""
    return 0 if worker_id is None else parse_worker_id(worker_id)


def _require_accepted(services: Services, job_id: int, refused: list[int]) -> None:
    if not refused:
        return
    if not views.is_known(services.raft.state, job_id):
        raise unknown_job(job_id)
    raise ProblemError("stale_attempt", f"job {job_id} is not at this attempt any more")


@routes.add(
    "PUT",
    "/v1/jobs/{job_id}/complete",
    "Report that an attempt succeeded",
    body=CompleteRequest,
    status=204,
    problems=(*STALE, "payload_too_large"),
)
async def complete(call: Call[CompleteRequest, Query]) -> None:
    request, services = call.body, call.services
    job_id = parse_job_id(call.path("job_id"))
    output = None if request.output is UNSET else bytes(request.output)
    maximum = services.settings.output_max_bytes
    if output is not None and len(output) > maximum:
        raise ProblemError(
            "payload_too_large",
            f"the output has {len(output)} bytes; {maximum} are allowed",
            pointer="/output",
        )
    refused = await services.desk.complete(
        _holder(request.worker_id), [job_id], [request.attempt], [output], None
    )
    _require_accepted(services, job_id, refused)


@routes.add(
    "PUT",
    "/v1/jobs/{job_id}/fail",
    "Report that an attempt failed; the cluster decides whether it is retried",
    body=FailRequest,
    status=204,
    problems=STALE,
)
async def fail(call: Call[FailRequest, Query]) -> None:
    request, services = call.body, call.services
    job_id = parse_job_id(call.path("job_id"))
    error = AttemptError(
        job_id, request.attempt, request.error_type, request.error, request.retryable
    )
    refused = await services.desk.fail(_holder(request.worker_id), [error])
    _require_accepted(services, job_id, refused)


@routes.add(
    "PUT",
    "/v1/jobs/{job_id}/progress",
    "Report how far an attempt has come",
    body=ProgressRequest,
    status=204,
    problems=STALE,
)
async def progress(call: Call[ProgressRequest, Query]) -> None:
    request, services = call.body, call.services
    job_id = parse_job_id(call.path("job_id"))
    item = (job_id, request.attempt, request.fraction, request.message)
    _require_accepted(services, job_id, services.desk.progress(0, [item]))


@routes.add(
    "PUT",
    "/v1/jobs/{job_id}/release",
    "Hand an attempt back unfinished; no retry is consumed",
    body=ReleaseRequest,
    status=204,
    problems=STALE,
)
async def release(call: Call[ReleaseRequest, Query]) -> None:
    request, services = call.body, call.services
    job_id = parse_job_id(call.path("job_id"))
    refused = await services.desk.release(_holder(request.worker_id), [job_id], [request.attempt])
    _require_accepted(services, job_id, refused)
