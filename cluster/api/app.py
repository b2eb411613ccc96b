"""Puts the edge together: the rows of every resource, and what stands before each of them.

Order of a request: answers get their headers and errors become problems; pages of other origins are
turned away; what only the leader can answer goes there; then the row's handler.
"""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from cluster.actors.services import Services
from cluster.api import (
    backup,
    batch,
    bulk,
    calendars,
    clock,
    cluster,
    debug,
    dlq,
    docs,
    health,
    history,
    jobs,
    lab,
    members,
    schedule_acts,
    schedule_forecast,
    schedule_past,
    schedules,
    stats,
    worker_stream,
    workers,
)
from cluster.api.errors import ProblemError, problem_of
from cluster.api.forwarding import FORWARDED_BY, Forwarding, session_context
from cluster.api.plain import INDEX_HEADER, LEADER_HEADER
from cluster.api.routing import HISTORY_HEADER, SERVICES, Endpoint, Served

log = logging.getLogger("quorate.api")

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))

# Fixed paths before those with a parameter in the same place: the first match wins.
TABLE: tuple[Endpoint, ...] = (
    *batch.routes,
    *bulk.routes,
    *jobs.routes,
    *schedule_forecast.routes,
    *schedule_acts.routes,
    *schedule_past.routes,
    *schedules.routes,
    *calendars.routes,
    *dlq.routes,
    *worker_stream.routes,
    *workers.routes,
    *cluster.routes,
    *clock.routes,
    *members.routes,
    *backup.routes,
    *history.routes,
    *stats.routes,
    *health.routes,
    *debug.routes,
    *docs.routes,
    *lab.routes,
)


def build_app(services: Services) -> web.Application:
    """The node's HTTP application; runs wherever an aiohttp runner puts it."""
    edge = _Edge(services)
    app = web.Application(
        client_max_size=services.settings.request_max_bytes,
        middlewares=(edge.problems, edge.same_origin, Forwarding(services).middleware),
        # A body is never unpacked: some hundred KiB would become GiB on the loop that also leads.
        handler_args={"access_log": None, "auto_decompress": False},
    )
    app[SERVICES] = services
    app[worker_stream.CONNECTIONS] = set()
    app.on_response_prepare.append(edge.sign)
    app.on_shutdown.append(worker_stream.close_all)
    app.cleanup_ctx.append(session_context)
    for endpoint in TABLE:
        handler = Served(endpoint, services).serve
        if endpoint.method == "GET":
            app.router.add_get(endpoint.path, handler, allow_head=not endpoint.upgrade)
        else:
            app.router.add_route(endpoint.method, endpoint.path, handler)
    docs.prepare(app, TABLE)
    return app


class _Edge:
    """What stands before every handler."""

    def __init__(self, services: Services) -> None:
        self._raft = services.raft
        self._history = services.history

    async def sign(self, request: web.Request, response: web.StreamResponse) -> None:
        """Every answer names the leader and how far the answering node has come."""
        headers = response.headers
        if INDEX_HEADER in headers:
            return  # passed on: the leader has signed it
        headers[INDEX_HEADER] = str(self._raft.applied_index)
        leader = self._raft.leader_http
        if leader is not None:
            headers[LEADER_HEADER] = leader
        if not self._history.is_complete and _tells_past(request):
            headers[HISTORY_HEADER] = "incomplete"

    @web.middleware
    async def problems(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _require_plain(request)
            return await handler(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            problem = problem_of(error)
            if problem is None and isinstance(error, ConnectionError) and _is_gone(request):
                log.debug(
                    "%s %s: the client left before its body came", request.method, request.path
                )
                problem = ProblemError("bad_request", "the connection was closed")
            if problem is None:
                log.exception("%s %s failed", request.method, request.path)
                problem = ProblemError("internal", "the node failed to answer; see its log")
            return problem.response(request)

    @web.middleware
    async def same_origin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A page of another origin may not make a browser submit jobs or open worker streams.

        Browsers send such requests without asking as long as they look like form posts, and the
        body's type is not insisted on here."""
        origin = request.headers.get("Origin")
        if origin is not None and _is_foreign(request, origin):
            raise ProblemError("cross_origin", f"this API does not serve pages of {origin:.200}")
        return await handler(request)


def _require_plain(request: web.Request) -> None:
    encoding = request.headers.get("Content-Encoding")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise ProblemError(
            "unsupported_encoding", f"send the body without Content-Encoding: {encoding:.40}"
        )


def _tells_past(request: web.Request) -> bool:
    served = getattr(request.match_info.handler, "__self__", None)
    return isinstance(served, Served) and served.endpoint.past


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _is_foreign(request: web.Request, origin: str) -> bool:
    if request.method in SAFE_METHODS and "Upgrade" not in request.headers:
        return False
    # Another node has looked already, and passed on a different Host.
    return urlsplit(origin).netloc != request.host and FORWARDED_BY not in request.headers
