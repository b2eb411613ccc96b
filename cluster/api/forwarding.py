"""Any node answers any request: what only the leader can answer, a follower passes on to it.

Bodies stream through. A request that may have reached the leader is never sent twice unless it is a
GET; when its answer got lost the client is told so. Nothing waits without end: connecting, every
piece of the body and the answer have deadlines. A leader that falls silent is waited for only until
another one leads: a paused machine must not hold requests that somebody else could answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict
from yarl import URL

from cluster.actors.services import NotLeader, Services
from cluster.api.archives import NotHereError, from_others
from cluster.api.consistency import LEVELS, confirm
from cluster.api.errors import ProblemError, no_leader, outcome_unknown
from cluster.api.routing import Endpoint, ReadQuery, Served

LEADER_WAIT_SECONDS = 1.0
LEADER_POLL_SECONDS = 0.02  # in case nobody says that something has changed
CONNECT_SECONDS = 2.0
SUPERSEDED_SECONDS = 0.25  # a leader that handed over still answers what it has committed
LEADERLESS_SECONDS = 1.0  # a connection that broke by itself is back by then
FORWARDED_MAX = 5_000  # at the same time; waiting readers are most of them
HOPS_MAX = 3
WHOLE_BYTES_MAX = 1 << 20  # an answer up to this size is read before it is passed on
CHUNK_BYTES = 1 << 16
FORWARDED_BY = "X-Forwarded-By"
HANDED_OVER = "X-Quorate-Handed-Over"  # a refusal of a leader that made another one for the request

# RFC 9110, 7.6.1: meant for one connection, not for the request.
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
     "transfer-encoding", "upgrade", "host", "origin", "expect")
)  # fmt: skip

# The connection was not even made, so the body is whole and the leader knows of nothing.
NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
SAFE_METHODS = frozenset(("GET", "HEAD"))

SESSION: web.AppKey[aiohttp.ClientSession] = web.AppKey("session", aiohttp.ClientSession)


class HandedOverError(Exception):
    """The leader did nothing but hand over: the next one is to be asked."""


class AnswerLostError(aiohttp.ClientError):
    """The connection broke under a request that may have been received."""


async def once(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Middleware against aiohttp's own repetition of PUT and DELETE when a kept connection breaks:
    the second one would be answered `unknown` or `stale` although the first did its work."""
    try:
        return await handler(request)
    except NEVER_SENT:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise AnswerLostError(str(error)) from error


async def session_context(app: web.Application) -> AsyncIterator[None]:
    """The client session lives as long as the application."""
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
    app[SESSION] = aiohttp.ClientSession(
        timeout=timeout,
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=(once,),
    )
    yield
    await app[SESSION].close()


class Forwarding:
    """The middleware and what it needs to know of the node."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # For the head of an answer: whose, and since when.
        self._waiting: dict[asyncio.Timeout, tuple[str, float]] = {}
        self._news = asyncio.Event()
        services.raft.on_leader(self._leader_is)
        services.raft.on_leadership(lambda leads: self._tell_news())

    def _leader_is(self, leader: str | None) -> None:
        """Another node leads, or none: what was asked of the one before has only a moment left."""
        self._tell_news()
        if self._waiting:
            grace_s = SUPERSEDED_SECONDS if leader is not None else LEADERLESS_SECONDS
            loop = asyncio.get_running_loop()
            loop.call_later(grace_s, self._give_up_superseded, loop.time())

    def _give_up_superseded(self, since_s: float) -> None:
        """What was asked later has a later leader's change to fear, with a grace of its own."""
        leader = self._services.raft.leader_http  # the same one again, if it was only out of sight
        now_s = asyncio.get_running_loop().time()
        for limit, (asked, asked_s) in self._waiting.items():
            if asked != leader and asked_s <= since_s:
                _move(limit, now_s)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        served = getattr(request.match_info.handler, "__self__", None)
        if not isinstance(served, Served) or served.endpoint.local:
            return await handler(request)
        level = served.endpoint.level_of(request)
        if level is not None and level != "leader":
            return await self._here(request, handler, level)
        if self._services.raft.is_leader:
            try:
                answer = await self._answer(request, handler)
            except NotLeader:
                pass  # leadership ended under the request; nothing was proposed, another may try
            else:
                if level is not None:
                    self._services.metrics.count_read(level)
                return answer
        if served.endpoint.upgrade:
            if await self._leads_soon():
                return await self._answer(request, handler)
            leader = self._services.raft.leader_http
            raise ProblemError("not_leader", "workers connect to the leader", leader=leader)
        return await self._elsewhere(request, handler, served.endpoint)

    async def _here(self, request: web.Request, handler: Handler, level: str) -> web.StreamResponse:
        """A read that any node answers; an unknown level is refused by the handler."""
        if level == "linearizable":
            await confirm(self._services)
        if level in LEVELS:
            self._services.metrics.count_read(level)
        if level == "stale":
            return await handler(request)
        return await self._answer(request, handler)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """This node's answer, or that of a node whose history has what this one's lacks."""
        try:
            return await handler(request)
        except NotHereError:
            if request.method not in SAFE_METHODS:
                raise
            found = await from_others(request, self._services, request.app[SESSION])
            if found is None:
                raise
            return found

    async def _elsewhere(
        self, request: web.Request, handler: Handler, endpoint: Endpoint
    ) -> web.StreamResponse:
        """Ask the leader; once more, if that cannot do anything twice."""
        if len(self._waiting) >= FORWARDED_MAX:
            raise ProblemError("overloaded", "too many requests wait for the leader's answer")
        headers = self._headers(request)
        repeatable = request.method in SAFE_METHODS or issubclass(endpoint.query, ReadQuery)
        if repeatable and request.body_exists:
            await request.read()  # a stream could be sent only once
        leader = await self._leader(None)
        for last in (False, True):
            if leader is None:
                return await handler(request)  # this node became the leader meanwhile
            try:
                return await self._ask(request, endpoint, leader, headers)
            except (*NEVER_SENT, HandedOverError):
                pass
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                if not repeatable:
                    raise outcome_unknown() from None
            if not last:
                leader = await self._leader(leader)
        raise no_leader()

    def _headers(self, request: web.Request) -> CIMultiDict[str]:
        """Raises no_quorum when the request has come this way before: the nodes do not agree yet
        on who leads."""
        hops = request.headers.getall(FORWARDED_BY, [])
        node_id = self._services.raft.node_id
        if len(hops) >= HOPS_MAX or node_id in hops:
            raise no_leader()
        headers = _end_to_end(request.headers)
        headers.add(FORWARDED_BY, node_id)
        return headers

    async def _leader(self, failed: str | None) -> str | None:
        """The base URL of another node that leads; None when this one does.

        Waits a moment for an election to end, then raises no_quorum. The leader that `failed` is
        named again only when nobody else was elected by then."""
        raft = self._services.raft
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + LEADER_WAIT_SECONDS
        while not raft.is_leader:
            leader = raft.leader_http if raft.leader_id != raft.node_id else None
            late = loop.time() >= give_up_s
            if leader is not None and (leader != failed or late):
                return leader
            if late:
                raise no_leader()
            await self._hear_news()
        return None

    async def _leads_soon(self) -> bool:
        """Whether this node was elected and leads by now: workers come the moment they hear."""
        raft = self._services.raft
        if raft.leader_id != raft.node_id:
            return False
        with contextlib.suppress(ProblemError):
            return await self._leader(None) is None
        return False

    def _tell_news(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _hear_news(self) -> None:
        """Until something may have changed about who leads."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEADER_POLL_SECONDS):
                await self._news.wait()

    async def _ask(
        self, request: web.Request, endpoint: Endpoint, leader: str, headers: CIMultiDict[str]
    ) -> web.StreamResponse:
        patience_s = endpoint.patience_s
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=patience_s)
        async with contextlib.AsyncExitStack() as stack:
            # For the head of the answer; the rest has the session's deadlines.
            async with asyncio.timeout(patience_s) as limit:
                if not endpoint.hands_over:
                    self._waiting[limit] = leader, asyncio.get_running_loop().time()
                try:
                    answer = await stack.enter_async_context(
                        request.app[SESSION].request(
                            request.method,
                            URL(leader + request.raw_path, encoded=True),
                            data=await _body(request, limit, patience_s),
                            headers=headers,
                            timeout=timeout,
                            allow_redirects=False,
                        )
                    )
                finally:
                    self._waiting.pop(limit, None)
            if HANDED_OVER in answer.headers:
                raise HandedOverError
            kept = _end_to_end(answer.headers)
            length = answer.content_length
            if length is not None and length <= WHOLE_BYTES_MAX and request.method != "HEAD":
                del kept["Content-Length"]
                body = await answer.read()
                return web.Response(status=answer.status, body=body, headers=kept)
            return await _pass_on(request, answer, kept)


def _move(limit: asyncio.Timeout, when_s: float) -> None:
    with contextlib.suppress(RuntimeError):  # it has struck, or the answer's head is here
        limit.reschedule(when_s)


async def _body(
    request: web.Request, limit: asyncio.Timeout, patience_s: float
) -> bytes | AsyncIterator[bytes] | None:
    if not request.body_exists:
        return None
    # What has arrived whole (or was read before leadership ended) needs no stream.
    if request.content.is_eof():
        return await request.read()
    return _pieces(request.content, limit, patience_s)


async def _pieces(
    content: aiohttp.StreamReader, limit: asyncio.Timeout, patience_s: float
) -> AsyncIterator[bytes]:
    """A body on its way; the deadline moves on with every piece that arrived and was sent."""
    loop = asyncio.get_running_loop()
    async for piece in content.iter_any():
        _move(limit, loop.time() + patience_s)
        yield piece
    _move(limit, loop.time() + patience_s)


async def _pass_on(
    request: web.Request, answer: aiohttp.ClientResponse, headers: CIMultiDict[str]
) -> web.StreamResponse:
    """A large answer, piece by piece. Once begun it can only be cut off, never replaced."""
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
            await response.write(chunk)
    except (aiohttp.ClientError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        if name.lower() not in HOP_BY_HOP:
            kept.add(name, value)
    return kept
