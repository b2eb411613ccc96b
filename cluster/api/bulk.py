"""POST /v1/jobs/cancel, retry, status: one answer per job, by ids or by filter.

A filter works on a bounded number of jobs a request and says when it fits more, so that no request
holds the node for long.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.actors.services import Services
from cluster.api.answers import BulkAnswer, BulkItem
from cluster.api.errors import ProblemError, refusal
from cluster.api.jobs import retry_command
from cluster.api.lookup import filter_of, find_job, page, parse_job_id, unknown_job
from cluster.api.models import IDS_MAX, BulkRequest, JobChangesRequest
from cluster.api.routing import Call, Query, ReadQuery, Routes
from cluster.api.submission import propose
from cluster.machine import lifecycle, views
from cluster.machine.commands import CancelJobs
from cluster.machine.results import PerJob, Rejected
from cluster.machine.views import JobFilter

routes = Routes("jobs")

Select = Callable[[Services, JobFilter], list[int]]


def _live_ids(services: Services, wanted: JobFilter) -> list[int]:
    return [v.id for v in views.jobs(services.raft.state, wanted, 0, IDS_MAX + 1)]


def _dead_ids(services: Services, wanted: JobFilter) -> list[int]:
    return [v.id for v in views.dead_jobs(services.raft.state, wanted, 0, IDS_MAX + 1)]


def filter_in(request: BulkRequest) -> JobFilter | None:
    """The filter, or None when ids were given. Raises ProblemError for neither, both, or a filter
    that fits everything: that is more likely a mistake than a wish."""
    if (request.ids is None) == (request.filter is None):
        raise ProblemError("validation", "give exactly one of ids and filter", pointer="/ids")
    if request.filter is None:
        return None
    wanted = filter_of(request.filter)
    if wanted == JobFilter():
        raise ProblemError(
            "validation", "name at least one of status, queue, name, tag", pointer="/filter"
        )
    return wanted


def select(
    services: Services, request: BulkRequest, by_filter: Select
) -> tuple[list[int | ProblemError], list[str], bool]:
    """`(ids or why not, the ids as given, more)`. Raises ProblemError like `filter_in`."""
    wanted = filter_in(request)
    if wanted is not None:
        found = by_filter(services, wanted)
        chosen = found[:IDS_MAX]
        return list(chosen), [str(i) for i in chosen], len(found) > IDS_MAX
    ids = request.ids or []
    return [_parsed(i) for i in ids], [str(i) for i in ids], False


def _parsed(text: str | int) -> int | ProblemError:
    try:
        return parse_job_id(text)
    except ProblemError as problem:
        return problem


async def _status_item(services: Services, job_id: int, shown: str) -> BulkItem:
    try:
        view = await find_job(services, job_id)
    except ProblemError as problem:
        return failed_item(shown, problem)
    return BulkItem(shown, True, lifecycle.STATUS[view.state])


def failed_item(shown: str, problem: ProblemError) -> BulkItem:
    return BulkItem(shown, False, None, problem.code, problem.detail)


def items_of(
    ids: list[int | ProblemError], shown: list[str], codes: list[int], status: str
) -> list[BulkItem]:
    """One item per job; `codes` are of those that had a valid id, in order."""
    answers, items = iter(codes), []
    for job_id, text in zip(ids, shown, strict=True):
        if isinstance(job_id, ProblemError):
            items.append(failed_item(text, job_id))
            continue
        code = next(answers)
        if code:
            items.append(failed_item(text, refusal(Rejected(code))))
        else:
            items.append(BulkItem(text, True, status))
    return items


@routes.add(
    "POST",
    "/v1/jobs/cancel",
    "Cancel many jobs",
    body=BulkRequest,
    answer=BulkAnswer,
    problems=("validation",),
)
async def cancel_jobs(call: Call[BulkRequest, Query]) -> BulkAnswer:
    services = call.services
    ids, shown, more = select(services, call.body, _live_ids)
    valid = [i for i in ids if isinstance(i, int)]
    result = PerJob([])
    if valid:
        result = await propose(services, CancelJobs(valid, "cancelled by a client"))
    return BulkAnswer(items_of(ids, shown, result.codes, "cancelled"), more)


@routes.add(
    "POST",
    "/v1/jobs/retry",
    "Run many failed jobs again",
    body=BulkRequest,
    answer=BulkAnswer,
    problems=("validation",),
)
async def retry_jobs(call: Call[BulkRequest, Query]) -> BulkAnswer:
    services = call.services
    ids, shown, more = select(services, call.body, _dead_ids)
    valid = [i for i in ids if isinstance(i, int)]
    result = PerJob([])
    if valid:
        result = await propose(services, retry_command(services, valid, JobChangesRequest()))
    return BulkAnswer(items_of(ids, shown, result.codes, "pending"), more)


@routes.add(
    "POST",
    "/v1/jobs/status",
    "Show the status of many jobs",
    body=BulkRequest,
    query=ReadQuery,
    answer=BulkAnswer,
    problems=("validation",),
)
async def status_jobs(call: Call[BulkRequest, ReadQuery]) -> BulkAnswer:
    services, request = call.services, call.body
    wanted = filter_in(request)
    if wanted is not None:
        found, before_id = await page(services, wanted, 0, IDS_MAX)
        items = [BulkItem(str(v.id), True, lifecycle.STATUS[v.state]) for v in found]
        return BulkAnswer(items, bool(before_id))
    ids, shown, _ = select(services, request, _live_ids)
    items = []
    for job_id, text in zip(ids, shown, strict=True):
        if isinstance(job_id, ProblemError):
            items.append(failed_item(text, unknown_job(text)))
        else:
            items.append(await _status_item(services, job_id, text))
    return BulkAnswer(items, False)
