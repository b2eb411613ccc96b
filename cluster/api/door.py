"""Where connections come in: each starts in the fast lane and stays there while it can.

The door is the lane's counter: it submits what a lane has read and renders the answer, from the
same parts as `jobs.submit_job`. Whatever it does not want to judge goes to the ordinary server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import cast

from aiohttp import web

from cluster.actors.services import NotLeader, Services
from cluster.api.codec import encode_json
from cluster.api.crowd import Entrance
from cluster.api.errors import ProblemError, problem_of, refusal
from cluster.api.jobs import submit_plain
from cluster.api.lane import Lane, Lanes
from cluster.api.lookup import answer_of, plain_answer
from cluster.api.plain import BACKLOG, Head, signature
from cluster.api.plain import answer as plain
from cluster.machine.results import Rejected, Submitted

log = logging.getLogger("quorate.api")

LONE, BATCH = "/v1/jobs", "/v1/jobs/batch"

Reply = Callable[[bytes | None], None]
Outcome = Submitted | Rejected


class Door:
    """Listens, and gives every connection a lane; `server` gets those that ask for more."""

    body_bytes_max = 64 << 10  # larger ones are read better piece by piece

    def __init__(self, services: Services, server: web.Server) -> None:
        self._services = services
        self._server = server
        self._lanes = Lanes()
        self._listener: asyncio.Server | None = None
        self._late: set[asyncio.Task[None]] = set()
        self.port = 0  # that it was given, where any would do
        self.submitted_total = 0

    async def open(self, host: str, port: int) -> None:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            self._entrance, host, port, reuse_address=True, backlog=BACKLOG
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    def _entrance(self) -> Entrance:
        lane = Lane(self, self._lanes)
        return Entrance(self._services.vitals, lane, self._crowded, self.pass_on)

    def _crowded(self) -> bytes:
        reason = self._services.vitals.files.sentence()
        return self._problem(ProblemError("connections_full", f"{reason}: try another node"))

    async def close(self, timeout_s: float) -> None:
        """No connection comes in any more, and lanes end when they have answered."""
        if self._listener is not None:
            self._listener.close()
        self._lanes.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._lanes:  # noqa: ASYNC110  (once in a node's life)
                    await asyncio.sleep(0.01)

    async def adopt(self, connection: socket.socket, received: bytes) -> None:
        """Serve a connection of which somebody else has read the beginning."""
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: _Adopted(self, received), connection)

    # -- what a lane asks ------------------------------------------------------------------------

    def pass_on(self, transport: asyncio.Transport, received: bytes) -> None:
        protocol = self._server()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(received)

    def take(self, head: Head, body: bytes, reply: Reply) -> bool:
        if head.path != LONE or head.key:
            return False  # the framework is a small part of what these cost
        try:
            future = submit_plain(self._services, body)
        except Exception:
            return False  # the ordinary server runs into it again, and says what it is
        if future is None:
            return False
        self.submitted_total += 1
        future.add_done_callback(partial(self._done, reply))
        return True

    def _done(self, reply: Reply, future: asyncio.Future[Outcome]) -> None:
        error = future.exception()
        if isinstance(error, NotLeader):
            reply(None)  # nothing was done; whoever leads now may
        elif error is not None:
            reply(self._failed(error))
        else:
            result = future.result()
            if isinstance(result, Rejected):
                reply(self._problem(refusal(result)))
            else:
                self._created(reply, result.first)

    def _created(self, reply: Reply, job_id: int) -> None:
        found = plain_answer(self._services, job_id)
        if found is None:
            task = asyncio.create_task(self._created_late(reply, job_id))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return
        reply(self._render(job_id, encode_json(found)))

    async def _created_late(self, reply: Reply, job_id: int) -> None:
        """It has ended already, so its history must be asked."""
        try:
            reply(self._render(job_id, encode_json(await answer_of(self._services, job_id))))
        except Exception as error:
            reply(self._failed(error))

    def _render(self, job_id: int, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Location": f"{LONE}/{job_id}"}
        return plain(201, headers, self._signature(), body)

    def _failed(self, error: BaseException) -> bytes:
        problem = problem_of(error)
        if problem is None:
            log.error("POST %s failed", LONE, exc_info=error)
            problem = ProblemError("internal", "the node failed to answer; see its log")
        return self._problem(problem)

    def _problem(self, problem: ProblemError) -> bytes:
        status, headers, body = problem.parts(LONE)
        return plain(status, headers, self._signature(), body)

    def _signature(self) -> bytes:
        return signature(self._services.raft.applied_index, self._services.raft.leader_http)


class _Adopted(asyncio.Protocol):
    """Gives the ordinary server what was read already, before anything else is read."""

    def __init__(self, door: Door, received: bytes) -> None:
        self._door = door
        self._received = received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._door.pass_on(cast(asyncio.Transport, transport), self._received)
