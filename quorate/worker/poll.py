"""The long-poll twin of the stream: plain HTTP requests, for proxies that break WebSockets.

Any node answers, so it needs no leader; every result is one request, repeated until a node has
answered for it. Slower by design: use the stream where it works.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import Any

import msgspec

from ..errors import Conflict, NotFound, QuorateError, Unavailable, ValidationError, WorkerRefused
from ..transport import Transport
from ..views import read
from .frames import Assignment, Key
from .link import Desk
from .outbox import Result

logger = logging.getLogger("quorate.worker")

POLL_SECONDS = 10.0
POLL_JOBS_MAX = 1000
PAUSE_SECONDS = 0.5  # after an answer that makes no sense, so that nothing spins
REPORTS_AT_ONCE = 16


class _PolledJob(msgspec.Struct):
    job_id: int
    attempt: int
    name: str
    queue: str = "default"
    payload: msgspec.Raw = msgspec.Raw(b"null")
    timeout_seconds: float | None = None
    deadline: datetime | None = None
    failures: int = 0
    max_retries: int = 0

    def assignment(self) -> Assignment:
        """The same job as the stream would push it."""
        return Assignment(
            job_id=self.job_id,
            attempt=self.attempt,
            name=self.name,
            queue=self.queue,
            payload=bytes(self.payload),
            timeout_ms=round((self.timeout_seconds or 0) * 1000),
            deadline_ms=round(self.deadline.timestamp() * 1000) if self.deadline else 0,
            failures=self.failures,
            max_retries=self.max_retries,
        )


class _Polled(msgspec.Struct):
    jobs: list[_PolledJob] = []


class _Held(msgspec.Struct):
    job_id: int
    attempt: int


class _Beat(msgspec.Struct):
    cancel: list[_Held] = []
    stop: list[_Held] = []
    drain: bool = False


class _Welcome(msgspec.Struct):
    worker_id: str
    ttl_seconds: float = 10.0


class PollLink:
    """One worker that asks for its jobs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._transport = Transport(desk.nodes, retry_seconds=30.0)
        self._ttl_seconds = 10.0
        self._draining = asyncio.Event()
        self._reports = asyncio.Semaphore(REPORTS_AT_ONCE)
        self._reporting: set[asyncio.Task[None]] = set()
        self._registering = asyncio.Lock()
        self._loops: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """See Link."""
        await self._register()
        self._desk.outbox.restart((), 0)
        loop = asyncio.get_running_loop()
        self._loops = [
            loop.create_task(self._forever(step))
            for step in (self._poll, self._heartbeat, self._report)
        ]
        try:
            await asyncio.gather(*self._loops)
        except asyncio.CancelledError:
            if not any(part.cancelled() for part in self._loops):
                raise
        finally:
            for part in (*self._loops, *self._reporting):
                part.cancel()
            await asyncio.gather(*self._loops, *self._reporting, return_exceptions=True)
            await self._transport.close()

    def stop_taking(self) -> None:
        """See Link."""
        self._draining.set()

    async def leave(self) -> None:
        """See Link."""
        worker_id, self._desk.identity.worker_id = self._desk.identity.worker_id, None
        self._transport.retry_seconds = 3.0
        try:
            if worker_id is not None:
                await self._transport.request("DELETE", f"/v1/workers/{worker_id}")
        except QuorateError as error:
            logger.warning("left without a goodbye: %s", error)
        for part in self._loops:
            part.cancel()

    async def _forever(self, step: Any) -> None:
        """Repeats one duty through every failure but a final refusal."""
        while True:
            try:
                await step()
            except NotFound:
                await self._register()  # forgotten after a long silence
            except WorkerRefused:
                raise
            except QuorateError as error:
                logger.info("%s", error)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _register(self) -> None:
        identity = self._desk.identity
        before = identity.worker_id
        async with self._registering:
            if identity.worker_id != before:
                return  # another duty was faster
            body = {
                "name": identity.name,
                "slots": identity.slots,
                "queues": identity.queues,
                "tasks": identity.tasks,
                "labels": identity.labels,
            }
            while True:
                try:
                    raw = await self._transport.request(
                        "POST", "/v1/workers", msgspec.json.encode(body)
                    )
                    break
                except ValidationError as error:
                    raise WorkerRefused(error.message, code=error.code) from error
                except QuorateError as error:
                    logger.info("cannot register yet: %s", error)
                    await asyncio.sleep(PAUSE_SECONDS)
            welcome = read(raw.body, _Welcome)
            identity.worker_id = self._desk.runner.worker_id = welcome.worker_id
            self._ttl_seconds = max(0.3, welcome.ttl_seconds)
            logger.info("worker %s polls %s", welcome.worker_id, ", ".join(self._desk.nodes))
            self._desk.on_registered()

    def _path(self, verb: str) -> str:
        return f"/v1/workers/{self._desk.identity.worker_id}/{verb}"

    async def _poll(self) -> None:
        runner = self._desk.runner
        if self._draining.is_set() or not runner.free_slots:
            await runner.wait_change()
            return
        body = {"max": min(runner.free_slots, POLL_JOBS_MAX), "wait": POLL_SECONDS}
        asking = asyncio.ensure_future(
            self._transport.request(
                "POST",
                self._path("poll"),
                msgspec.json.encode(body),
                replayable=False,
                answer_seconds=POLL_SECONDS + 10.0,
            )
        )
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait((asking, draining), return_when=asyncio.FIRST_COMPLETED)
        finally:
            draining.cancel()
            if not asking.done():
                # Jobs that were assigned to this very request come back by our next heartbeat,
                # which does not name them, or by our leaving.
                asking.cancel()
        if asking.done() and not asking.cancelled():
            polled = read(asking.result().body, _Polled)
            runner.start([job.assignment() for job in polled.jobs])

    async def _heartbeat(self) -> None:
        await asyncio.sleep(self._ttl_seconds / 3)
        runner, outbox = self._desk.runner, self._desk.outbox
        held = dict.fromkeys([*runner.running, *outbox.held])
        body = {
            "running": [{"job_id": str(job_id), "attempt": attempt} for job_id, attempt in held]
        }
        response = await self._transport.request(
            "POST", self._path("heartbeat"), msgspec.json.encode(body)
        )
        beat = read(response.body, _Beat)
        runner.cancel([(item.job_id, item.attempt) for item in beat.cancel])
        runner.stop([(item.job_id, item.attempt) for item in beat.stop])
        if beat.drain:
            self._desk.on_drain()

    async def _report(self) -> None:
        outbox = self._desk.outbox
        await outbox.wake.wait()
        results, progress = outbox.take()
        for result in results:
            await self._reports.acquire()
            self._spawn(self._report_one(result))
        for key, (fraction, message) in progress.items():
            await self._reports.acquire()
            self._spawn(self._report_progress(key, fraction, message))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._reporting.add(task)
        task.add_done_callback(self._reported)

    def _reported(self, task: asyncio.Task[None]) -> None:
        self._reporting.discard(task)
        self._reports.release()

    async def _report_one(self, result: Result) -> None:
        """Says one result until some node has answered for it."""
        verb, body = _result_body(result, self._desk.identity.worker_id)
        while True:
            try:
                await self._put(result.key, verb, body)
            except Unavailable as error:
                logger.info("result of job %s waits: %s", result.key[0], error)
                continue
            except (Conflict, NotFound):
                pass  # another attempt holds the job by now, or it is gone
            except QuorateError as error:
                logger.error("result of job %s was refused: %s", result.key[0], error)
            self._desk.outbox.settle(result.key)
            return

    async def _report_progress(self, key: Key, fraction: float | None, message: str | None) -> None:
        body = {"attempt": key[1], "fraction": fraction, "message": message}
        try:
            await self._put(key, "progress", msgspec.json.encode(body))
        except QuorateError as error:
            logger.debug("progress of job %s was not taken: %s", key[0], error)

    async def _put(self, key: Key, verb: str, body: bytes) -> None:
        await self._transport.request("PUT", f"/v1/jobs/{key[0]}/{verb}", body)


def _result_body(result: Result, worker_id: str | None) -> tuple[str, bytes]:
    item = result.item
    body: dict[str, Any] = {"attempt": item[1]}
    if result.kind == "released":
        return "release", msgspec.json.encode(body)
    if result.kind == "done":
        body["worker_id"] = worker_id
        if item[2] is not None:
            body["output"] = msgspec.Raw(item[2])
        return "complete", msgspec.json.encode(body)
    body |= {"error_type": item[2], "error": item[3], "retryable": item[4]}
    return "fail", msgspec.json.encode(body)
