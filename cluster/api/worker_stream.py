"""GET /v1/workers/stream: one WebSocket per worker, pushed jobs one way, results the other.

The connection only translates: what a frame means is the desk's to decide, and how results are
booked that of its `Booking`. A worker that does not read what it is sent is cut off, one that sends
results faster than they can be committed is not read from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from aiohttp import WSMsgType, web

from cluster.actors.assigned import Assigned
from cluster.actors.desk import SEND_AWAY_S
from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded, Services
from cluster.api import frames
from cluster.api.booking import Booking
from cluster.api.errors import ProblemError
from cluster.api.frames import Attempt, BadFrame, Incoming, Results
from cluster.api.lookup import parse_worker_id
from cluster.api.outbox import Outbox
from cluster.api.routing import Call, Query, Routes
from cluster.machine.model import WorkerSpec

log = logging.getLogger("quorate.api.stream")

routes = Routes("workers")

REGISTER_SECONDS = 10.0
RESULTS_WAITING_MAX = 20_000  # items; beyond this the socket is not read

CONNECTIONS: web.AppKey[set[Any]] = web.AppKey("connections", set[Any])


@routes.add(
    "GET",
    "/v1/workers/stream",
    "Open the worker stream (WebSocket, subprotocol quorate.msgpack.v1)",
    status=101,
    upgrade=True,
    problems=("not_leader", "upgrade_required"),
)
async def worker_stream(call: Call[None, Query]) -> web.StreamResponse:
    services, request = call.services, call.request
    socket = web.WebSocketResponse(
        protocols=(frames.SUBPROTOCOL,),
        max_msg_size=services.settings.request_max_bytes,
        compress=False,
    )
    if not socket.can_prepare(request).ok:
        raise ProblemError("upgrade_required", "open this address as a WebSocket")
    await socket.prepare(request)
    connection = Connection(services, socket, request)
    # A server that gives up on the request must not take away the time to book what has arrived.
    connection.task = asyncio.create_task(_serve(connection, request.app[CONNECTIONS]))
    await asyncio.shield(connection.task)
    return socket


async def _serve(connection: Connection, connections: set[Any]) -> None:
    connections.add(connection)
    try:
        await connection.serve()
    finally:
        connections.discard(connection)


async def close_all(app: web.Application) -> None:
    """The node stops: every worker is told to go elsewhere."""
    connections = app[CONNECTIONS]
    for connection in list(connections):
        connection.close_moved(connection.services.raft.leader_http)


class Connection:
    """One worker's socket, and the sink that the desk writes to."""

    def __init__(
        self, services: Services, socket: web.WebSocketResponse, request: web.Request
    ) -> None:
        self.services = services
        self.worker_id = 0
        self.task: asyncio.Task[None] | None = None  # kept, or nobody would hold it
        self._desk = services.desk
        self._socket = socket
        self._address = request.remote or ""
        self._said_bye = False
        self._columns = False  # whether the worker reads them
        self._ttl_s = services.settings.worker_ttl_seconds
        transport = request.transport
        abort = transport.abort if transport is not None else lambda: None
        self._outbox = Outbox(socket, abort, self._ttl_s)
        self._booking: Booking | None = None  # once it is registered

    # -- Sink: called by the desk, never blocks --------------------------------------------------

    def send_jobs(self, jobs: Assigned) -> None:
        if not self._columns:
            self._outbox.put(frames.jobs(jobs.rows()))
            return
        groups, rest = jobs.columns()
        for group in groups:
            self._outbox.put(frames.like(group))
        if rest:
            self._outbox.put(frames.jobs(rest))

    def send_cancel(self, attempts: list[Attempt]) -> None:
        self._outbox.put(frames.cancel(attempts))

    def send_stop(self, attempts: list[Attempt]) -> None:
        self._outbox.put(frames.stop(attempts))

    def send_drain(self) -> None:
        self._outbox.put(frames.DRAIN)

    def close_moved(self, leader_http: str | None) -> None:
        self._outbox.close(frames.moved(leader_http))

    # -- the conversation ------------------------------------------------------------------------

    async def serve(self) -> None:
        """From the first frame to the last; returns when the socket is closed."""
        writer = asyncio.create_task(self._outbox.run())
        try:
            if await self._register():
                await self._read()
        except BadFrame as error:
            self._outbox.close(frames.error("bad_frame", str(error)))
        except NotLeader as error:
            self.close_moved(error.leader_http)
        except (OutcomeUnknown, Overloaded) as error:
            self._outbox.close(frames.error("try_again", str(error) or "try again"))
        finally:
            await self._end(writer)

    async def _register(self) -> bool:
        """The first frame. False when the worker was gone before it came."""
        try:
            async with asyncio.timeout(REGISTER_SECONDS):
                message = await self._socket.receive()
        except TimeoutError:
            raise BadFrame("no register frame came") from None
        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
            return False
        frame = frames.decode(message.data) if message.type is WSMsgType.BINARY else None
        if not isinstance(frame, frames.Register):
            raise BadFrame("the first frame must be register")
        offer = frame.offer
        spec = WorkerSpec(
            offer.name or "worker",
            offer.slots,
            tuple(offer.queues),
            tuple(offer.tasks),
            offer.labels,
            round(self._ttl_s * 1000),
            self._address,
        )
        known_id = 0
        if offer.worker_id is not None:
            try:
                known_id = parse_worker_id(offer.worker_id)
            except ProblemError as problem:
                raise BadFrame(problem.detail) from None
        running = [(held.job_id, held.attempt) for held in offer.running]
        self._columns = frames.COLUMNS in offer.speaks
        self.worker_id, drop = await self._desk.register(spec, known_id, running, self)
        self._booking = Booking(
            self._desk, self.worker_id, self.services.settings.output_max_bytes, self._outbox.put,
            self._results_end,
        )  # fmt: skip
        self._outbox.put_first(frames.registered(self.worker_id, self._ttl_s, drop, self._columns))
        return True

    async def _read(self) -> None:
        socket, desk, worker_id = self._socket, self._desk, self.worker_id
        while True:
            message = await socket.receive()
            if message.type is not WSMsgType.BINARY:
                if message.type is WSMsgType.TEXT:
                    raise BadFrame("frames are binary")
                return
            self._outbox.heard()
            desk.seen(worker_id)
            frame = frames.decode(message.data)
            if frame is not None:
                await self._handle(frame)
                if self._said_bye:
                    return

    async def _handle(self, frame: Incoming) -> None:
        worker_id = self.worker_id
        match frame:
            case frames.Done():
                await self._take_results(frames.Completed.of(frame))
            case frames.Completed() | frames.Failed() | frames.Released():
                await self._take_results(frame)
            case frames.Credit():
                self._desk.grant(worker_id, frame.count)
            case frames.Heartbeat():
                pass  # being heard is all it is for
            case frames.Progress():
                items = [(i.job_id, i.attempt, i.fraction, i.message) for i in frame.items]
                self._desk.progress(worker_id, items)
            case frames.Log():
                self._desk.log(worker_id, [(i.job_id, i.attempt, i.text) for i in frame.items])
            case frames.Drain():
                await self._desk.drain(worker_id)
            case frames.Bye():
                self._said_bye = True
            case frames.Register():
                raise BadFrame("a connection registers once")

    async def _take_results(self, frame: Results) -> None:
        """Queue results for the booker; with too many waiting, read no further for now."""
        if frame.credit:
            # The slots are free whatever becomes of the commit.
            self._desk.grant(self.worker_id, frame.credit)
        booking = self._booking
        assert booking is not None
        booking.add(frame)
        if booking.items > RESULTS_WAITING_MAX:
            while booking.items > RESULTS_WAITING_MAX // 2 and not booking.has_ended:
                await booking.moved()

    def _results_end(self, error: Exception) -> None:
        """Some were not booked. They are not acknowledged, so the worker says them again: here, or
        to whoever leads by then."""
        match error:
            case NotLeader() | OutcomeUnknown():
                self._send_away()
            case Overloaded():
                self._outbox.close(frames.error("try_again", str(error)))
            case _:
                log.error("results of worker w%d were not booked", self.worker_id, exc_info=error)
                self._outbox.close(frames.error("try_again", "the results were not booked"))

    def _send_away(self) -> None:
        """At once if somebody leads; else for a moment the desk may learn who does."""
        leader_http = self.services.raft.leader_http
        if leader_http is not None:
            self.close_moved(leader_http)
        else:
            asyncio.get_running_loop().call_later(SEND_AWAY_S, self._close_moved_at_last)

    def _close_moved_at_last(self) -> None:
        self.close_moved(self.services.raft.leader_http)

    async def _end(self, writer: asyncio.Task[None]) -> None:
        """Book what has arrived, tell the desk, close the socket."""
        if self._booking is not None:
            await self._finish_booking(self._booking)
            self._booking = None  # it knows this connection: nobody else is to part the two
        if self.worker_id:
            if self._said_bye:
                with contextlib.suppress(NotLeader, OutcomeUnknown, Overloaded):
                    await self._desk.leave(self.worker_id)
            self._desk.disconnected(self.worker_id, self)
        self._outbox.close(None)
        await writer
        await self._socket.close()

    async def _finish_booking(self, booking: Booking) -> None:
        while booking.items and not booking.has_ended and not self._outbox.closing:
            await booking.moved()
        booking.stop()
