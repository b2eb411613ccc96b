"""POST /v1/jobs/batch: the way jobs come in when there are many. The hot path of the edge.

The whole body is decoded in one call in C; only when that fails is it taken apart item by item, so
that each bad job gets its own error and the good ones are accepted all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web
from msgspec import Raw, Struct

from cluster.actors.services import Services
from cluster.api.answers import BatchAnswer, BatchError, BatchMinimal
from cluster.api.codec import (
    MSGPACK_TYPES,
    NDJSON_TYPES,
    check_text,
    encode_json,
    invalid,
    media_type,
    msgpack_to_json,
)
from cluster.api.errors import ProblemError
from cluster.api.intake import Grouped, group_jobs
from cluster.api.models import BatchRequest, JobRequest
from cluster.api.routing import Call, Query, Routes, respond
from cluster.api.submission import (
    IDEMPOTENCY_KEY,
    KEY_TTL,
    PREFER,
    REPLAYED,
    ids_of,
    recall,
    request_key,
    room_problem,
    submit,
    unique_conflict,
)
from cluster.machine.commands import JobGroup
from cluster.machine.results import Submitted

routes = Routes("jobs")

BATCH_JOBS_MAX = 10_000

Items = list[JobRequest | ProblemError]


class _RawBatch(Struct, forbid_unknown_fields=True):
    jobs: list[Raw]


_decode_list = msgspec.json.Decoder(list[JobRequest]).decode
_decode_object = msgspec.json.Decoder(BatchRequest).decode
_decode_lines = msgspec.json.Decoder(JobRequest).decode_lines
_decode_job = msgspec.json.Decoder(JobRequest).decode
_decode_raw_list = msgspec.json.Decoder(list[Raw]).decode
_decode_raw_object = msgspec.json.Decoder(_RawBatch).decode


def decode_batch(raw: bytes, content_type: str | None) -> tuple[Items, str]:
    """The jobs, or the error in place of each bad one, and the pointer of their list.

    Raises ProblemError when the body as a whole cannot be read."""
    media = media_type(content_type)
    if not raw:
        raise ProblemError("invalid_json", "the body is empty")
    if media in NDJSON_TYPES:
        check_text(raw)
        return _lines(raw), ""
    if media in MSGPACK_TYPES:
        raw = msgpack_to_json(raw)
    else:
        check_text(raw)
    try:
        return _document(raw)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except msgspec.DecodeError as error:
        raise ProblemError("invalid_json", str(error)) from None
    except RecursionError:
        raise ProblemError("validation", "the body is nested too deeply", pointer="") from None


def _document(raw: bytes) -> tuple[Items, str]:
    bare = raw.lstrip()[:1] == b"["
    try:
        if bare:
            return _decode_list(raw), ""  # type: ignore[return-value]
        return _decode_object(raw).jobs, "/jobs"  # type: ignore[return-value]
    except msgspec.ValidationError:
        raws = _decode_raw_list(raw) if bare else _decode_raw_object(raw).jobs
    return [_one(item) for item in raws], "" if bare else "/jobs"


def _lines(raw: bytes) -> Items:
    try:
        return _decode_lines(raw)  # type: ignore[return-value]
    except (msgspec.DecodeError, RecursionError):
        return [_one(line) for line in raw.splitlines() if line.strip()]


def _one(raw: Raw | bytes) -> JobRequest | ProblemError:
    try:
        return _decode_job(raw)
    except msgspec.ValidationError as error:
        return invalid(error, JobRequest)
    except msgspec.DecodeError as error:
        return ProblemError("invalid_json", str(error), pointer="")
    except RecursionError:
        return ProblemError("validation", "this job is nested too deeply", pointer="")


@routes.add(
    "POST",
    "/v1/jobs/batch",
    "Submit up to 10,000 jobs; 207 when some were refused",
    body=BatchRequest,
    decodes=False,
    answer=BatchAnswer,
    status=201,
    media=("application/json", "application/x-ndjson", "application/msgpack"),
    headers=(IDEMPOTENCY_KEY, KEY_TTL, PREFER),
    problems=("validation", "payload_too_large", "queue_full", "idempotency_mismatch"),
)
async def submit_batch(call: Call[None, Query]) -> web.Response:
    services, request = call.services, call.request
    key = request_key(request, call.raw, services)
    items, pointer = decode_batch(call.raw, request.headers.get("Content-Type"))
    if len(items) > BATCH_JOBS_MAX:
        raise ProblemError(
            "validation", f"a batch takes at most {BATCH_JOBS_MAX} jobs", pointer=pointer
        )
    grouped = group_jobs(items, services.clock.now_ms(), services.settings)
    full = _refuse_overflow(services, grouped)
    if grouped.groups:
        result = await submit(services, grouped.groups, key)
    else:
        answered = await recall(services, key)
        if answered is None and full and len(full) == len(items):
            raise full[0]
        result = answered or Submitted(0, 0)
    if result.replayed and len(ids_of(result)) != len(grouped.accepted):
        grouped = _as_first_time(call, result)
    minimal = "return=minimal" in request.headers.get("Prefer", "")
    if not grouped.errors and result.ids is None:
        headers, body = accepted(result, minimal)
        return respond(body, 201, headers)
    return _answer(grouped, result, len(items), pointer, minimal)


def accepted(result: Submitted, minimal: bool) -> tuple[dict[str, str], bytes]:
    """Headers and body of the answer when every job was accepted."""
    headers = dict(REPLAYED) if result.replayed else {}
    if not minimal:
        return headers, _all_ids(result)
    headers["Preference-Applied"] = "return=minimal"
    return headers, encode_json(_minimal(result, []))


def _refuse_overflow(services: Services, grouped: Grouped) -> list[ProblemError]:
    """Jobs for a queue without room for all of the batch's are refused, others not. Returns the
    refusals."""
    wanted: dict[str, int] = {}
    for group in grouped.groups:
        queue = group.spec.queue
        wanted[queue] = wanted.get(queue, 0) + len(group.payloads)
    full = {queue: e for queue, n in wanted.items() if (e := room_problem(services, queue, n))}
    if not full:
        return []
    kept: list[JobGroup] = []
    accepted: list[int] = []
    refused: list[ProblemError] = []
    positions = iter(grouped.accepted)
    for group in grouped.groups:
        members = [next(positions) for _ in group.payloads]
        problem = full.get(group.spec.queue)
        if problem is None:
            kept.append(group)
            accepted += members
        else:
            refused += [problem] * len(members)
            grouped.errors.update(dict.fromkeys(members, problem))
    grouped.groups, grouped.accepted = kept, accepted
    return refused


def _as_first_time(call: Call[None, Query], result: Submitted) -> Grouped:
    """Which jobs a repeated batch created at first, when some of them would be refused by now.

    What depends on the clock was fine then, so it is judged by a clock that stands still."""
    items, _ = decode_batch(call.raw, call.request.headers.get("Content-Type"))
    grouped = group_jobs(items, 0, call.services.settings)
    if len(ids_of(result)) == len(grouped.accepted):
        return grouped
    last = result.first + result.count - 1
    raise ProblemError(
        "conflict",
        f"this batch was accepted before, in part, as jobs {result.first} to {last}; "
        "which of them is which cannot be told any more",
    )


def _answer(
    grouped: Grouped, result: Submitted, count: int, pointer: str, minimal: bool
) -> web.Response:
    problems = dict(grouped.errors)
    if result.ids is not None:
        for position, job_id in zip(grouped.accepted, result.ids, strict=True):
            if not job_id:
                problems[position] = unique_conflict()
    errors = [_error(index, problem, pointer) for index, problem in sorted(problems.items())]
    status = 207 if errors else 201
    headers = dict(REPLAYED) if result.replayed else {}
    if minimal and result.ids is None:
        headers["Preference-Applied"] = "return=minimal"
        return respond(_minimal(result, errors), status, headers)
    body = BatchAnswer(_ids(grouped.accepted, result, count), errors)
    return respond(body, status, headers or None)


def _minimal(result: Submitted, errors: list[BatchError]) -> BatchMinimal:
    if not result.count:
        return BatchMinimal(None, None, 0, errors)
    last = result.first + result.count - 1
    return BatchMinimal(str(result.first), str(last), result.count, errors)


def _error(index: int, problem: ProblemError, pointer: str) -> BatchError:
    place = None if problem.pointer is None else f"{pointer}/{index}{problem.pointer}"
    return BatchError(index, problem.code, problem.detail, place)


def _ids(accepted: Sequence[int], result: Submitted, count: int) -> list[str | None]:
    ids: list[str | None] = [None] * count
    for position, job_id in zip(accepted, ids_of(result), strict=True):
        ids[position] = str(job_id) if job_id else None
    return ids


def _all_ids(result: Submitted) -> bytes:
    """The answer when every job was accepted: digits need no encoder."""
    if not result.count:
        return encode_json(BatchAnswer([], []))
    ids = '","'.join(map(str, range(result.first, result.first + result.count)))
    return b'{"ids":["%b"],"errors":[]}' % ids.encode()
