"""/v1/dlq: jobs that failed for good and wait for a person."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from cluster.actors.services import Services
from cluster.api.answers import BulkItem, JobAnswer, JobsPage
from cluster.api.bulk import items_of
from cluster.api.errors import ProblemError
from cluster.api.jobs import retry_command
from cluster.api.lookup import answer, decode_cursor, encode_cursor, parse_job_id, unknown_job
from cluster.api.models import IDS_MAX, DeadQuery, PurgeRequest, ReplayRequest
from cluster.api.routing import Call, Query, Routes
from cluster.api.submission import propose
from cluster.machine import lifecycle, views
from cluster.machine.commands import PurgeDead
from cluster.machine.results import PerJob
from cluster.machine.views import JobFilter

routes = Routes("dead letters")


class DeadAnswer(Struct):
    """`count` jobs were dealt with; `more`: some were left for the next request."""

    count: int
    more: bool
    items: list[BulkItem]


@routes.add("GET", "/v1/dlq", "List dead letters, newest first", query=DeadQuery, answer=JobsPage)
async def list_dead(call: Call[None, DeadQuery]) -> JobsPage:
    query, services = call.query, call.services
    wanted = JobFilter("", query.queue, query.name, query.tag)
    before_id = decode_cursor(query.cursor)
    found = views.dead_jobs(services.raft.state, wanted, before_id, query.limit + 1)
    items = [answer(services, view) for view in found[: query.limit]]
    more = len(found) > query.limit
    return JobsPage(items, encode_cursor(found[query.limit - 1].id) if more else None)


@routes.add(
    "GET", "/v1/dlq/{job_id}", "Show a dead letter", answer=JobAnswer, problems=("unknown_job",)
)
async def get_dead(call: Call[None, Query]) -> JobAnswer:
    job_id = parse_job_id(call.path("job_id"))
    view = views.job(call.services.raft.state, job_id)
    if view is None or view.state != lifecycle.FAILED:
        raise unknown_job(job_id)
    return answer(call.services, view)


def _chosen(
    services: Services, ids: Sequence[str | int] | None, everything: bool
) -> tuple[list[int | ProblemError], list[str], bool]:
    if (ids is not None) == everything:
        raise ProblemError("validation", "give either ids or all: true", pointer="/ids")
    if ids is None:
        found = views.dead_jobs(services.raft.state, JobFilter(), 0, IDS_MAX + 1)
        chosen = [view.id for view in found[:IDS_MAX]]
        return list(chosen), [str(i) for i in chosen], len(found) > IDS_MAX
    parsed: list[int | ProblemError] = []
    for text in ids:
        try:
            parsed.append(parse_job_id(text))
        except ProblemError as problem:
            parsed.append(problem)
    return parsed, [str(i) for i in ids], False


def _dealt(
    ids: list[int | ProblemError], shown: list[str], result: PerJob, status: str, more: bool
) -> DeadAnswer:
    items = items_of(ids, shown, result.codes, status)
    return DeadAnswer(sum(item.ok for item in items), more, items)


@routes.add(
    "POST",
    "/v1/dlq/replay",
    "Run dead letters again, optionally changed",
    body=ReplayRequest,
    answer=DeadAnswer,
    problems=("validation",),
)
async def replay(call: Call[ReplayRequest, Query]) -> DeadAnswer:
    services, request = call.services, call.body
    ids, shown, more = _chosen(services, request.ids, request.all)
    valid = [i for i in ids if isinstance(i, int)]
    command = retry_command(services, valid, request)
    result = await propose(services, command) if valid else PerJob([])
    return _dealt(ids, shown, result, "pending", more)


@routes.add(
    "POST",
    "/v1/dlq/purge",
    "Forget dead letters; their history stays",
    body=PurgeRequest,
    answer=DeadAnswer,
    problems=("validation",),
)
async def purge(call: Call[PurgeRequest, Query]) -> DeadAnswer:
    services = call.services
    ids, shown, more = _chosen(services, call.body.ids, call.body.all)
    valid = [i for i in ids if isinstance(i, int)]
    result = await propose(services, PurgeDead(valid)) if valid else PerJob([])
    return _dealt(ids, shown, result, "failed", more)
