"""A cluster of interchangeable nodes in one process that speaks the public protocol.

Keeps jobs in a dict, no consensus: it exists to lose answers, drop links and move leadership at the
worst moment. Everything a test may wait for is an awaitable, nothing sleeps.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from quorate import Worker

if TYPE_CHECKING:
    from fake_node import FakeNode

StartWorker = Callable[..., Awaitable[Worker]]

pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode


def problem(status: int, code: str, detail: str = "", **more: Any) -> web.Response:
    body = {"type": f"urn:quorate:problem:{code}", "status": status, "code": code, **more}
    body["detail"] = detail or code
    headers = {"Retry-After": "0.05"} if status in (429, 503) else {}
    return web.json_response(
        body, status=status, content_type="application/problem+json", headers=headers
    )


class Link:
    """One worker as the leader sees it."""

    def __init__(self, worker_id: str, hello: dict[str, Any]) -> None:
        self.worker_id = worker_id
        self.hello = hello
        self.credit = 0
        self.socket: web.WebSocketResponse | None = None
        self.frames: list[list[Any]] = []
        self.cancel: list[dict[str, Any]] = []
        self.stop: list[dict[str, Any]] = []
        self.drain = False


class FakeCluster:
    """Shared state of all nodes."""

    def __init__(self) -> None:
        self.nodes: list[FakeNode] = []
        self.leader = 0
        self.jobs: dict[int, dict[str, Any]] = {}
        self.workers: dict[str, Link] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.members: dict[str, str] = {"n:1": "voter", "n:2": "voter", "n:3": "voter"}
        self.catching_up = 0  # so many looks at the members until who joins votes
        self.levels: list[tuple[str, str | None]] = []  # path and asked consistency
        self.answers: dict[str, Any] = {}
        self.lose_answers = 0  # apply, then cut the connection
        self.refuse: list[tuple[int, str]] = []  # answer these instead of working
        self.acking = True
        self.held_acks: list[Callable[[], Any]] = []
        self.keep_jobs = False  # do not assign
        self.ttl_seconds = 5.0
        self.silent = False  # heartbeats are not answered
        self.refuse_workers: tuple[str, str] | None = None
        self.changed = asyncio.Condition()

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    async def until(self, condition: Callable[[], Any], timeout: float = 60.0) -> Any:
        """Waits until `condition()` is true after some change; its value."""
        async with asyncio.timeout(timeout), self.changed:
            while not (value := condition()):
                await self.changed.wait()
            return value

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def add(self, name: str, payload: Any = None, **fields: Any) -> int:
        job_id = len(self.jobs) + 1
        self.jobs[job_id] = {
            "job_id": str(job_id),
            "id": str(job_id),
            "name": name,
            "payload": payload,
            "queue": fields.pop("queue", "default"),
            "status": "pending",
            "attempt": 0,
            "failures": 0,
            "max_retries": 3,
            "timeout_seconds": 3600,
            **fields,
        }
        return job_id

    def status(self, job_id: int) -> str:
        return str(self.jobs[int(job_id)]["status"])

    async def dispatch(self) -> None:
        """Pushes ready jobs against credits."""
        if not self.keep_jobs:
            for link in self.workers.values():
                if link.socket is not None and link.credit > 0:
                    await self._push(link)
        await self.notify()

    def assign(self, link: Link, most: int) -> list[dict[str, Any]]:
        taken: list[dict[str, Any]] = []
        for job in self.jobs.values():
            if len(taken) == most:
                break
            if job["status"] == "pending" and job["queue"] in link.hello["queues"]:
                job |= {"status": "running", "attempt": job["attempt"] + 1}
                job["worker_id"] = link.worker_id
                taken.append(job)
        return taken

    async def _push(self, link: Link) -> None:
        rows = [
            [
                int(job["job_id"]),
                job["attempt"],
                job["name"],
                job["queue"],
                json.dumps(job["payload"]).encode(),
                round(job["timeout_seconds"] * 1000),
                0,
                job["failures"],
                job["max_retries"],
            ]
            for job in self.assign(link, link.credit)
        ]
        if rows and link.socket is not None:
            link.credit -= len(rows)
            await link.socket.send_bytes(pack(["jobs", rows]))

    def finish(self, kind: str, item: list[Any]) -> bool:
        """False when the attempt is stale."""
        job = self.jobs.get(int(item[0]))
        if job is None or job["attempt"] != item[1] or job["status"] != "running":
            return False
        if kind == "done":
            job |= {"status": "completed", "output": None}
            if item[2] is not None:
                job["output"] = json.loads(item[2])
            job["log"] = item[3] if len(item) > 3 else None
        elif kind == "released":
            job |= {"status": "pending", "released": job.get("released", 0) + 1}
        else:
            again = item[4] and job["failures"] < job["max_retries"]
            job |= {"status": "pending" if again else "failed", "failures": job["failures"] + 1}
            job |= {"error_type": item[2], "error_message": item[3], "retryable": item[4]}
            job["log"] = item[5] if len(item) > 5 else None
        return True

    async def move_leader(self, to: int) -> None:
        """The old leader says so and closes; nothing that was unacknowledged is known."""
        self.leader = to
        for link in self.workers.values():
            if link.socket is not None:
                await link.socket.send_bytes(pack(["moved", self.nodes[to].url]))
                await link.socket.close()

    async def cancel(self, job_id: int) -> None:
        job = self.jobs[job_id]
        was_running = job["status"] == "running"
        job["status"] = "cancelled"
        link = self.workers.get(job.get("worker_id", ""))
        if was_running and link is not None:
            if link.socket is not None:
                await link.socket.send_bytes(pack(["cancel", [[job_id, job["attempt"]]]]))
            else:
                link.cancel.append({"job_id": str(job_id), "attempt": job["attempt"]})
        await self.notify()

    async def stop(self, job_id: int) -> None:
        """Ask for an end; the worker says how it came."""
        job = self.jobs[job_id]
        link = self.workers[job["worker_id"]]
        if link.socket is not None:
            await link.socket.send_bytes(pack(["stop", [[job_id, job["attempt"]]]]))
        else:
            link.stop.append({"job_id": str(job_id), "attempt": job["attempt"]})


async def finished(fake: FakeCluster, job_id: int | str) -> dict[str, Any]:
    """The job once it has ended."""
    job = fake.jobs[int(job_id)]
    await fake.until(lambda: job["status"] in ("completed", "failed", "cancelled", "skipped"))
    return job
