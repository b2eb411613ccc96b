"""Joins concurrent submissions into batch requests, because one HTTP request per job would cap a
client at a few thousand jobs per second.

A lone submission leaves at once; what arrives while a request is under way shares the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from .errors import BatchRefused, QuorateError, error_from_problem
from .requests import JobRequest
from .transport import Transport

COALESCE_JOBS_MAX = 1_000
BATCH_JOBS_MAX = 5_000  # for one explicit submit_many request
BATCH_BYTES_MAX = 4 * 1024 * 1024


class _BatchError(msgspec.Struct):
    index: int
    code: str = "error"
    detail: str | None = None
    pointer: str | None = None


class _BatchAnswer(msgspec.Struct):
    ids: list[str | int | None]
    errors: list[_BatchError] = []


_decode_answer = msgspec.json.Decoder(_BatchAnswer, strict=False).decode


async def post_batch(
    transport: Transport, jobs: Sequence[bytes]
) -> tuple[list[str | None], dict[int, QuorateError]]:
    """One batch request of encoded jobs: ids (None where refused) and the errors by index."""
    response = await transport.request(
        "POST", "/v1/jobs/batch", b"[" + b",".join(jobs) + b"]", answer_seconds=30.0
    )
    try:
        answer = _decode_answer(response.body)
    except msgspec.MsgspecError as error:
        raise QuorateError(f"the node's answer to a batch is malformed: {error}") from error
    if len(answer.ids) != len(jobs):
        raise QuorateError(f"the node answered {len(answer.ids)} ids for {len(jobs)} jobs")
    ids = [None if job_id is None else str(job_id) for job_id in answer.ids]
    errors = {
        item.index: error_from_problem(
            0, {"code": item.code, "detail": item.detail, "pointer": item.pointer}
        )
        for item in answer.errors
    }
    return ids, errors


async def submit_all(transport: Transport, requests: Sequence[JobRequest]) -> list[str]:
    """Submits in as few requests as the limits allow. BatchRefused if any job was refused."""
    encoded = [request.to_json() for request in requests]
    ids: list[str | None] = []
    errors: dict[int, QuorateError] = {}
    start = 0
    while start < len(encoded):
        end = _chunk_end(encoded, start, BATCH_JOBS_MAX)
        chunk_ids, chunk_errors = await post_batch(transport, encoded[start:end])
        ids += chunk_ids
        errors.update({start + index: error for index, error in chunk_errors.items()})
        start = end
    if errors:
        raise BatchRefused(ids, errors)
    return [job_id for job_id in ids if job_id is not None]


def _chunk_end(encoded: Sequence[bytes], start: int, jobs_max: int) -> int:
    """The end of the longest chunk from `start` within both limits; at least one job."""
    size = 0
    for index in range(start, min(len(encoded), start + jobs_max)):
        size += len(encoded[index]) + 1
        if size > BATCH_BYTES_MAX and index > start:
            return index
    return min(len(encoded), start + jobs_max)


class Submitter:
    """Coalesces single submissions of one client."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._waiting: list[tuple[bytes, asyncio.Future[str]]] = []
        self._sender: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def submit(self, request: JobRequest) -> str:
        """The id of the accepted job; raises what the server said about this job alone."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # a new event loop: whatever waited on the old one is gone
            self._loop, self._waiting, self._sender = loop, [], None
        future: asyncio.Future[str] = loop.create_future()
        self._waiting.append((request.to_json(), future))
        if self._sender is None:
            self._sender = loop.create_task(self._send())
        return await future

    async def _send(self) -> None:
        """Sends until nothing waits. Each failure goes to the callers it concerns."""
        try:
            while self._waiting:
                first = [job for job, _ in self._waiting[:COALESCE_JOBS_MAX]]
                end = _chunk_end(first, 0, COALESCE_JOBS_MAX)
                batch, self._waiting = self._waiting[:end], self._waiting[end:]
                # A caller that gave up before its job left does not want it any more.
                batch = [item for item in batch if not item[1].done()]
                if batch:
                    await self._send_batch(batch)
        finally:
            self._sender = None
            for _, future in self._waiting:  # only after an abort of this task
                future.cancel()

    async def _send_batch(self, batch: Sequence[tuple[bytes, asyncio.Future[str]]]) -> None:
        outcome: list[Any]
        try:
            ids, errors = await post_batch(self._transport, [job for job, _ in batch])
            refused = QuorateError("the node gave neither an id nor an error for this job")
            outcome = [
                errors.get(index, refused if job_id is None else job_id)
                for index, job_id in enumerate(ids)
            ]
        except Exception as error:
            outcome = [error] * len(batch)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), result in zip(batch, outcome, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
