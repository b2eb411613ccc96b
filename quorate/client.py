"""The whole HTTP API as an async Python object, one attribute per resource.

Adds nothing of its own but failover, idempotency keys and coalescing of submissions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack
from urllib.parse import quote

import msgspec

from . import payloads
from .backups import Backups
from .batching import Submitter, submit_all
from .calendars import Calendars
from .clock import ClusterClock
from .debug import DebugBundles
from .handle import Handle
from .members import Members
from .requests import JobRequest, SubmitOptions, job_request, option_fields
from .schedules import Schedules
from .transport import Consistency, Transport
from .views import ItemResult, JobView, LogEntry, Page, TimelineEvent, WorkerView, read
from .waiting import Waiter


class _Items(msgspec.Struct):
    items: list[ItemResult] = []


class _Timeline(msgspec.Struct):
    events: list[TimelineEvent] = []


class _Logs(msgspec.Struct):
    items: list[LogEntry] = []


class _Workers(msgspec.Struct):
    items: list[WorkerView] = []
    next_cursor: str | None = None


def _selection(ids: Iterable[str] | None, filters: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a bulk operation: exactly one of ids or filter."""
    chosen = {name: value for name, value in filters.items() if value is not None}
    if (ids is None) == (not chosen):
        raise ValueError("give either ids or at least one of status, queue, name, tag")
    return {"filter": chosen} if ids is None else {"ids": list(ids)}


class Jobs:
    """/v1/jobs"""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(
        self, job_id: str, *, wait: float | None = None, consistency: Consistency | None = None
    ) -> JobView:
        """A job; with `wait` (seconds) the answer comes when it is finished or time is up."""
        response = await self._transport.request(
            "GET",
            f"/v1/jobs/{quote(job_id, safe='')}",
            params={
                "wait": None if not wait else round(wait, 3),
                "consistency": consistency,
            },
            answer_seconds=10.0 + (wait or 0.0),
        )
        return read(response.body, JobView)

    async def list(
        self,
        *,
        status: str | None = None,
        queue: str | None = None,
        name: str | None = None,
        tag: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        consistency: Consistency | None = None,
    ) -> Page[JobView]:
        """One page of jobs, newest first as the server orders them."""
        filters = {"status": status, "queue": queue, "name": name, "tag": tag}
        page = {"limit": limit, "cursor": cursor, "consistency": consistency}
        response = await self._transport.request("GET", "/v1/jobs", params={**filters, **page})
        return read(response.body, Page[JobView])

    async def iterate(self, **filters: Any) -> AsyncIterator[JobView]:
        """All jobs that `list` would page through."""
        cursor: str | None = None
        while True:
            page = await self.list(cursor=cursor, **filters)
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def cancel(self, job_id: str) -> JobView:
        """Cancels one job. Conflict when it is finished already."""
        return await self._act(job_id, "cancel", None, replayable=True)

    async def retry(
        self, job_id: str, *, payload: Any = None, **changes: Unpack[SubmitOptions]
    ) -> JobView:
        """Runs a failed job again, optionally changed; Conflict when it is no dead letter."""
        return await self._act(job_id, "retry", _changes(payload, changes))

    async def clone(
        self, job_id: str, *, payload: Any = None, **changes: Unpack[SubmitOptions]
    ) -> JobView:
        """A new job like this one, optionally changed."""
        return await self._act(job_id, "clone", _changes(payload, changes), replayable=True)

    async def _act(self, job_id: str, verb: str, body: Any, *, replayable: bool = False) -> JobView:
        response = await self._transport.request(
            "POST",
            f"/v1/jobs/{quote(job_id, safe='')}/{verb}",
            None if body is None else payloads.encode(body),
            replayable=replayable,
        )
        return read(response.body, JobView)

    async def timeline(
        self, job_id: str, *, consistency: Consistency | None = None
    ) -> Sequence[TimelineEvent]:
        """What happened to the job, oldest first."""
        response = await self._transport.request(
            "GET",
            f"/v1/jobs/{quote(job_id, safe='')}/timeline",
            params={"consistency": consistency},
        )
        return read(response.body, _Timeline).events

    async def logs(
        self, job_id: str, *, consistency: Consistency | None = None
    ) -> Sequence[LogEntry]:
        """The kept log of each attempt."""
        response = await self._transport.request(
            "GET",
            f"/v1/jobs/{quote(job_id, safe='')}/logs",
            params={"consistency": consistency},
        )
        return read(response.body, _Logs).items

    async def result(self, job_id: str, *, consistency: Consistency | None = None) -> Any:
        """The answer of /v1/jobs/{id}/result as it is."""
        return await self._transport.json(
            "GET",
            f"/v1/jobs/{quote(job_id, safe='')}/result",
            params={"consistency": consistency},
        )

    async def cancel_many(
        self, ids: Iterable[str] | None = None, **filters: str | None
    ) -> Sequence[ItemResult]:
        """Cancels by ids or by filter (status, queue, name, tag)."""
        return await self._bulk("cancel", ids, filters)

    async def retry_many(
        self, ids: Iterable[str] | None = None, **filters: str | None
    ) -> Sequence[ItemResult]:
        """Runs failed jobs again, by ids or by filter."""
        return await self._bulk("retry", ids, filters)

    async def status_many(
        self,
        ids: Iterable[str] | None = None,
        *,
        consistency: Consistency | None = None,
        **filters: str | None,
    ) -> Sequence[ItemResult]:
        """The status of many jobs in one request."""
        level = consistency or self._transport.consistency
        return await self._bulk("status", ids, filters, {"consistency": level})

    async def _bulk(
        self,
        verb: str,
        ids: Iterable[str] | None,
        filters: Mapping[str, Any],
        params: Mapping[str, Any] | None = None,
    ) -> Sequence[ItemResult]:
        body = payloads.encode(_selection(ids, filters))
        response = await self._transport.request("POST", f"/v1/jobs/{verb}", body, params=params)
        return read(response.body, _Items).items


def _changes(payload: Any, options: Mapping[str, Any]) -> dict[str, Any] | None:
    fields = option_fields(options)
    if payload is not None:
        fields["payload"] = payload
    return fields or None


class DeadLetters:
    """/v1/dlq: jobs that failed for good."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(
        self,
        *,
        queue: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        consistency: Consistency | None = None,
    ) -> Page[JobView]:
        """One page of dead jobs."""
        filters = {"queue": queue, "name": name}
        page = {"limit": limit, "cursor": cursor, "consistency": consistency}
        response = await self._transport.request("GET", "/v1/dlq", params={**filters, **page})
        return read(response.body, Page[JobView])

    async def get(self, job_id: str, *, consistency: Consistency | None = None) -> JobView:
        """One dead job."""
        response = await self._transport.request(
            "GET", f"/v1/dlq/{quote(job_id, safe='')}", params={"consistency": consistency}
        )
        return read(response.body, JobView)

    async def replay(
        self, ids: Iterable[str] | None = None, *, payload: Any = None, **changes: Any
    ) -> dict[str, Any]:
        """Runs dead jobs again (all of them without ids), optionally changed."""
        body = {**_everything_or(ids), **(_changes(payload, changes) or {})}
        answer = await self._transport.json("POST", "/v1/dlq/replay", body, replayable=False)
        return dict(answer)

    async def purge(self, ids: Iterable[str] | None = None) -> int:
        """Forgets dead jobs (all of them without ids); how many."""
        answer = await self._transport.json("POST", "/v1/dlq/purge", _everything_or(ids))
        return int(answer["count"])


def _everything_or(ids: Iterable[str] | None) -> dict[str, Any]:
    return {"all": True} if ids is None else {"ids": list(ids)}


class Workers:
    """/v1/workers"""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, consistency: Consistency | None = None) -> Sequence[WorkerView]:
        """Every registered worker."""
        found: list[WorkerView] = []
        cursor: str | None = None
        while True:
            params = {"consistency": consistency, "cursor": cursor}
            response = await self._transport.request("GET", "/v1/workers", params=params)
            page = read(response.body, _Workers)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def get(self, worker_id: str, *, consistency: Consistency | None = None) -> WorkerView:
        """One worker."""
        response = await self._transport.request(
            "GET", f"/v1/workers/{quote(worker_id, safe='')}", params={"consistency": consistency}
        )
        return read(response.body, WorkerView)

    async def drain(self, worker_id: str) -> Any:
        """Lets the worker finish what it runs and leave."""
        return await self._transport.json("POST", f"/v1/workers/{quote(worker_id, safe='')}/drain")

    async def remove(self, worker_id: str) -> None:
        """Deregisters the worker; its jobs go to others."""
        await self._transport.request("DELETE", f"/v1/workers/{quote(worker_id, safe='')}")


class Client:
    """Everything the HTTP API offers. Use it as an async context manager or call `close`.

    `nodes`: base URLs as a list or comma string; default QUORATE_NODES, then the local ports.
    `retry_seconds`: how long a call survives a cluster without a leader.
    `consistency`: how fresh reads are that name no level themselves: "stale" (what the asked node
    has), "leader" (the server's default) or "linearizable" (all that was acknowledged before).
    """

    def __init__(
        self,
        nodes: str | Sequence[str] | None = None,
        *,
        retry_seconds: float = 30.0,
        consistency: Consistency | None = None,
    ) -> None:
        self.transport = Transport(nodes, retry_seconds=retry_seconds, consistency=consistency)
        self.jobs = Jobs(self.transport)
        self.schedules = Schedules(self.transport)
        self.calendars = Calendars(self.transport)
        self.dlq = DeadLetters(self.transport)
        self.workers = Workers(self.transport)
        self.members = Members(self.transport)
        self.backups = Backups(self.transport)
        self.debug = DebugBundles(self.transport)
        self.clock = ClusterClock(self.transport)
        self.waiter = Waiter(
            lambda job_id, seconds: self.jobs.get(job_id, wait=seconds), self.jobs.status_many
        )
        self._submitter = Submitter(self.transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self.transport.close()

    async def submit(
        self, name: str, payload: Any = None, **options: Unpack[SubmitOptions]
    ) -> Handle[Any]:
        """Submits one job by task name; concurrent calls share requests."""
        return await self.submit_request(job_request(name, payload, options))

    async def submit_request(self, request: JobRequest) -> Handle[Any]:
        """Submits a prepared request, coalesced like `submit`."""
        return Handle(self, await self._submitter.submit(request))

    async def submit_many(self, requests: Sequence[JobRequest]) -> list[Handle[Any]]:
        """Submits many in one round trip. BatchRefused if some were refused."""
        return [Handle(self, job_id) for job_id in await submit_all(self.transport, requests)]

    def handle(self, job_id: str) -> Handle[Any]:
        """A handle for a job known by its id."""
        return Handle(self, job_id)

    async def cluster(self, *, consistency: Consistency | None = None) -> dict[str, Any]:
        """Members, leader, term and health, as the asked node sees them unless told otherwise."""
        params = {"consistency": consistency}
        return dict(await self.transport.json("GET", "/v1/cluster", params=params))

    async def transfer_leadership(self, to: str | None = None) -> dict[str, Any]:
        """Hands leadership to `to`, or to the most advanced follower."""
        body = {} if to is None else {"to": to}
        answer = await self.transport.json(
            "POST", "/v1/cluster/transfer", body, replayable=False, answer_seconds=30.0
        )
        return dict(answer or {})

    async def upgrade(self, to: int | None = None, *, dry_run: bool = False) -> dict[str, Any]:
        """Raises the feature level, for good: to `to`, or as far as any node's release knows.
        Conflict, with every reason, unless all nodes are connected and know it."""
        body = {"to": to, "dry_run": dry_run}
        return dict(
            await self.transport.json("POST", "/v1/cluster/upgrade", body, replayable=False)
        )

    async def stats(self, *, consistency: Consistency | None = None) -> dict[str, Any]:
        """Counts by status and queue."""
        params = {"consistency": consistency}
        return dict(await self.transport.json("GET", "/v1/stats", params=params))
