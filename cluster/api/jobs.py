"""/v1/jobs: one job at a time."""

from __future__ import annotations

import asyncio

from aiohttp import web
from msgspec import UNSET

from cluster.actors.services import Services
from cluster.api import schedules
from cluster.api.answers import (
    JobAnswer,
    JobsPage,
    LogItem,
    Logs,
    ResultAnswer,
    Timeline,
)
from cluster.api.errors import ProblemError, refusal
from cluster.api.intake import (
    check_label,
    check_payload_size,
    decode_job,
    group_alone,
    ms,
    payload_of,
    priority_of,
)
from cluster.api.lookup import (
    answer,
    answer_of,
    decode_cursor,
    encode_cursor,
    find_job,
    page,
    parse_job_id,
)
from cluster.api.models import JobChangesRequest, JobRequest, JobsQuery, WaitQuery
from cluster.api.render import output_json, timeline
from cluster.api.routing import Call, Empty, Query, Routes, respond
from cluster.api.submission import (
    IDEMPOTENCY_KEY,
    KEY_TTL,
    REPLAYED,
    RequestKey,
    ids_of,
    propose,
    recall,
    request_key,
    require_room,
    submit,
    unique_conflict,
)
from cluster.machine import lifecycle, views
from cluster.machine.commands import CancelJobs, JobChanges, JobGroup, RetryJobs
from cluster.machine.model import JobSpec
from cluster.machine.results import PerJob, Rejected, Submitted
from cluster.machine.views import JobFilter, JobView

routes = Routes("jobs")

# What a repetition may run into although the first request was accepted.
TIME_DEPENDENT = frozenset({"validation", "queue_full", "memory_full"})


@routes.add(
    "POST",
    "/v1/jobs",
    "Submit a job, or with `schedule` create a recurring one",
    body=JobRequest,
    answer=JobAnswer,
    status=201,
    headers=(IDEMPOTENCY_KEY, KEY_TTL),
    problems=("validation", "payload_too_large", "queue_full", "conflict", "idempotency_mismatch"),
)
async def submit_job(call: Call[JobRequest, Query]) -> web.StreamResponse:
    request, services = call.body, call.services
    key = request_key(call.request, call.raw, services)
    if request.schedule is not None:
        return await schedules.create_from_job(call, request, key)
    try:
        group = lone_group(services, request)
    except ProblemError as problem:
        answered = await recall(services, key) if problem.code in TIME_DEPENDENT else None
        if answered is None:
            raise
        return await created(services, answered)
    return await created(services, await submit(services, [group], key))


def lone_group(services: Services, request: JobRequest) -> JobGroup:
    """The group of one job, for which there is room. Raises ProblemError."""
    group = group_alone(request, services.clock.now_ms(), services.settings)
    require_room(services, group.spec.queue, 1)
    return group


def submit_plain(services: Services, raw: bytes) -> asyncio.Future[Submitted | Rejected] | None:
    """As `submit_job`, as far as it goes without a key and without waiting; None when the request
    wants more. Raises what the edge knows how to refuse, and then nothing was done."""
    request = decode_job(raw, None)
    if request.schedule is not None or request.unique_key is not None:
        return None
    return services.submissions.submit(lone_group(services, request))


async def created(services: Services, result: Submitted, prefix: str = "/v1/jobs") -> web.Response:
    """201 for a new job or a replay of its creation, 200 for one that held the unique key."""
    job_id = ids_of(result)[0]
    if not job_id:
        raise unique_conflict()
    headers = {"Location": f"{prefix}/{job_id}"}
    if result.replayed:
        headers.update(REPLAYED)
    existed = not result.replayed and result.count == 0
    return respond(await answer_of(services, job_id), 200 if existed else 201, headers)


@routes.add(
    "GET", "/v1/jobs", "List jobs, newest first", query=JobsQuery, answer=JobsPage, past=True
)
async def list_jobs(call: Call[None, JobsQuery]) -> JobsPage:
    query, services = call.query, call.services
    wanted = JobFilter(query.status, query.queue, query.name, query.tag)
    found, before_id = await page(services, wanted, decode_cursor(query.cursor), query.limit)
    views.mark_offered(services.raft.state, found)
    items = [answer(services, view) for view in found]
    return JobsPage(items, encode_cursor(before_id) if before_id else None)


async def wait_for(services: Services, job_id: int, wait_s: float) -> JobView:
    """The job now, or once it is finished, at most `wait_s` later. Raises unknown_job."""
    view = await find_job(services, job_id)
    if wait_s and not lifecycle.is_finished(view.state):
        await services.waiters.finished(job_id, wait_s)
        view = await find_job(services, job_id)
    return view


@routes.add(
    "GET",
    "/v1/jobs/{job_id}",
    "Show a job; with `wait`, once it is finished or the time is up",
    query=WaitQuery,
    answer=JobAnswer,
    patience_s=330.0,
    problems=("unknown_job",),
)
async def get_job(call: Call[None, WaitQuery]) -> JobAnswer:
    job_id = parse_job_id(call.path("job_id"))
    return answer(call.services, await wait_for(call.services, job_id, call.query.wait))


@routes.add(
    "GET",
    "/v1/jobs/{job_id}/result",
    "Show what a job returned",
    query=WaitQuery,
    answer=ResultAnswer,
    patience_s=330.0,
    problems=("unknown_job",),
)
async def get_result(call: Call[None, WaitQuery]) -> ResultAnswer:
    job_id = parse_job_id(call.path("job_id"))
    view = await wait_for(call.services, job_id, call.query.wait)
    return ResultAnswer(
        str(view.id),
        lifecycle.STATUS[view.state],  # type: ignore[arg-type]
        lifecycle.is_finished(view.state),
        output_json(view.output),
        view.error_type or None,
        view.error_message or None,
    )


@routes.add(
    "GET",
    "/v1/jobs/{job_id}/timeline",
    "Show what happened to a job, oldest first",
    answer=Timeline,
    problems=("unknown_job",),
)
async def get_timeline(call: Call[None, Query]) -> Timeline:
    view = await find_job(call.services, parse_job_id(call.path("job_id")))
    return Timeline(timeline(view))


@routes.add(
    "GET",
    "/v1/jobs/{job_id}/logs",
    "Show the kept log of each attempt",
    answer=Logs,
    problems=("unknown_job",),
)
async def get_logs(call: Call[None, Query]) -> Logs:
    view = await find_job(call.services, parse_job_id(call.path("job_id")))
    by_attempt = {a.number: a.log for a in view.attempts or () if a.log}
    if view.log:
        by_attempt[view.attempt] = view.log
    for attempt, text in call.services.live.log_text(view.id):
        by_attempt.setdefault(attempt, text)
    return Logs([LogItem(attempt, by_attempt[attempt]) for attempt in sorted(by_attempt)])


def require_done(result: PerJob) -> None:
    """Raises the problem of the only job in the command, if it was refused."""
    if result.codes[0]:
        raise refusal(Rejected(result.codes[0]))


@routes.add(
    "POST",
    "/v1/jobs/{job_id}/cancel",
    "Cancel a job; a running one is really stopped",
    body=Empty,
    body_optional=True,
    answer=JobAnswer,
    problems=("unknown_job", "not_cancellable"),
)
async def cancel_job(call: Call[Empty, Query]) -> JobAnswer:
    job_id = parse_job_id(call.path("job_id"))
    require_done(await propose(call.services, CancelJobs([job_id], "cancelled by a client")))
    return await answer_of(call.services, job_id)


@routes.add(
    "POST",
    "/v1/jobs/{job_id}/retry",
    "Run a failed job again, optionally changed",
    body=JobChangesRequest,
    body_optional=True,
    answer=JobAnswer,
    problems=("unknown_job", "not_retryable", "validation"),
)
async def retry_job(call: Call[JobChangesRequest, Query]) -> JobAnswer:
    job_id = parse_job_id(call.path("job_id"))
    command = retry_command(call.services, [job_id], call.body)
    require_done(await propose(call.services, command))
    return await answer_of(call.services, job_id)


def retry_command(services: Services, job_ids: list[int], changes: JobChangesRequest) -> RetryJobs:
    """Raises ProblemError when a change is not possible."""
    delay_s = changes.delay_seconds
    run_at_ms = services.clock.now_ms() + ms(delay_s) if delay_s else 0
    return RetryJobs(
        job_ids,
        run_at_ms,
        JobChanges(
            None if changes.payload is UNSET else payload_of(changes.payload, services.settings),
            None if changes.queue is None else check_label(changes.queue, "/queue"),
            None if changes.priority is None else priority_of(changes.priority),
            changes.max_retries,
            None if changes.timeout_seconds is None else ms(changes.timeout_seconds),
        ),
    )


@routes.add(
    "POST",
    "/v1/jobs/{job_id}/clone",
    "Submit a new job like this one, optionally changed",
    body=JobChangesRequest,
    body_optional=True,
    answer=JobAnswer,
    status=201,
    headers=(IDEMPOTENCY_KEY, KEY_TTL),
    problems=("unknown_job", "validation", "queue_full", "idempotency_mismatch"),
)
async def clone_job(call: Call[JobChangesRequest, Query]) -> web.Response:
    services = call.services
    key: RequestKey = request_key(call.request, call.raw, services)
    view = await find_job(services, parse_job_id(call.path("job_id")))
    group = clone_group(services, view, call.body)
    require_room(services, group.spec.queue, 1)
    return await created(services, await submit(services, [group], key))


def clone_group(services: Services, view: JobView, changes: JobChangesRequest) -> JobGroup:
    """A group of one job like `view`; its unique key stays with the original."""
    command = retry_command(services, [], changes)
    new, old = command.changes, view.spec
    payload = new.payload if new.payload is not None else view.payload
    check_payload_size(len(payload), services.settings)
    spec = JobSpec(
        old.name,
        new.queue if new.queue is not None else old.queue,
        new.priority if new.priority is not None else old.priority,
        new.max_retries if new.max_retries is not None else old.max_retries,
        old.retry,
        new.timeout_ms if new.timeout_ms is not None else old.timeout_ms,
        old.tags,
    )
    return JobGroup(spec, [payload], command.run_at_ms)
