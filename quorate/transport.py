"""One HTTP conversation with a cluster of interchangeable nodes, through failovers.

Repeats a request only where repeating cannot do it twice: nothing was sent, the node refused
before doing anything, or the request carries an idempotency key. Knows nothing of jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple
from uuid import uuid4

import aiohttp
import msgspec

from . import payloads
from .errors import OutcomeUnknown, QuorateError, Unavailable, error_from_problem

# How fresh a read is: what the asked node has, what the leader has, or all that was acknowledged.
Consistency = Literal["stale", "leader", "linearizable"]

DEFAULT_NODES = (
    "http://127.0.0.1:8001",
    "http://127.0.0.1:8002",
    "http://127.0.0.1:8003",
    "http://127.0.0.1:8000",
)
BACKOFF_FIRST_SECONDS = 0.05
BACKOFF_MAX_SECONDS = 1.0
CONNECT_TIMEOUT_SECONDS = 3.0
ATTEMPT_TIMEOUT_SECONDS = 10.0
# Refused before anything was written to the log, so any request may be repeated.
NOT_APPLIED_CODES = frozenset(
    {
        *("no_quorum", "not_leader", "handed_over", "overloaded", "not_ready"),
        *("history_unavailable", "memory_full", "connections_full"),
    }
)

_decode_json = msgspec.json.Decoder().decode


def node_list(nodes: str | Sequence[str] | None) -> list[str]:
    """Base URLs from a comma string, a list, or QUORATE_NODES; the scheme may be left out."""
    if nodes is None:
        nodes = os.environ.get("QUORATE_NODES") or DEFAULT_NODES
    parts = nodes.split(",") if isinstance(nodes, str) else nodes
    urls = []
    for part in parts:
        url = part.strip().rstrip("/")
        if url:
            urls.append(url if "://" in url else f"http://{url}")
    if not urls:
        raise ValueError("no node addresses: give at least one, e.g. http://127.0.0.1:8001")
    return list(dict.fromkeys(urls))


class Response(NamedTuple):
    """A complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; QuorateError when the node answered something else."""
        if not self.body:
            return None
        try:
            return _decode_json(self.body)
        except msgspec.DecodeError as error:
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(self.body)  # knows numbers beyond a double, e.g. 1e999
            raise QuorateError(f"the node's answer is not JSON: {error}") from error


class _AnswerLostError(aiohttp.ClientError):
    """The connection broke under a request that may have been received."""


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Middleware against aiohttp's own repetition of PUT and DELETE on a kept connection that
    broke: what may be repeated is decided here."""
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _AnswerLostError(str(error)) from error


class _Failure(NamedTuple):
    """Why one try gave no answer, and whether the request may have been applied."""

    error: QuorateError
    applied: bool
    wait_seconds: float | None = None


class Transport:
    """HTTP requests to whichever node answers, remembering the last one that did."""

    def __init__(
        self,
        nodes: str | Sequence[str] | None = None,
        *,
        retry_seconds: float = 30.0,
        consistency: Consistency | None = None,
    ) -> None:
        """`consistency` is added to every GET that names none."""
        self.nodes = node_list(nodes)
        self.retry_seconds = retry_seconds
        self.consistency = consistency
        self._node = 0
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def session(self) -> aiohttp.ClientSession:
        """The session of the running loop; a client may be used from one loop after another."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._loop = loop
            # No connection limit: a caller that waits for many results holds many connections,
            # and must not starve its own submissions.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), middlewares=(_once,)
            )
        return self._session

    async def close(self) -> None:
        """Closes the connections; the transport opens new ones when used again."""
        if self._session is not None and self._loop is asyncio.get_running_loop():
            await self._session.close()
        self._session = None

    async def json(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, Any] | None = None,
        replayable: bool = True,
        answer_seconds: float = ATTEMPT_TIMEOUT_SECONDS,
    ) -> Any:
        """Request with a JSON body (any encodable value), answer as plain Python values."""
        raw = None if body is None else payloads.encode(body)
        response = await self.request(
            method, path, raw, params=params, replayable=replayable, answer_seconds=answer_seconds
        )
        return response.json()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        replayable: bool = True,
        answer_seconds: float = ATTEMPT_TIMEOUT_SECONDS,
    ) -> Response:
        """The first definite answer of any node.

        `replayable` means that the server recognises a repetition (by its idempotency key or by
        the nature of the request). Raises Unavailable when `retry_seconds` are over,
        OutcomeUnknown when a request that is not replayable may have been applied, and the class
        that fits the problem document for any other refusal.
        """
        head = {"Content-Type": "application/json"} if body is not None else {}
        if method == "POST":
            head["Idempotency-Key"] = uuid4().hex  # one per request, the same for every try
        head.update(headers or {})
        query = {k: str(v) for k, v in (params or {}).items() if v is not None}
        if method == "GET" and self.consistency is not None:
            query.setdefault("consistency", self.consistency)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self.retry_seconds
        tries = 0
        while True:
            timeout = aiohttp.ClientTimeout(
                total=answer_seconds, sock_connect=CONNECT_TIMEOUT_SECONDS
            )
            outcome = await self._try(
                method, path, body=body, query=query, head=head, timeout=timeout
            )
            if isinstance(outcome, Response):
                return outcome
            if outcome.applied and not replayable:
                raise OutcomeUnknown(str(outcome.error), status=outcome.error.status)
            self._node = (self._node + 1) % len(self.nodes)
            tries += 1
            pause = _pause_seconds(tries, len(self.nodes), outcome.wait_seconds)
            if loop.time() + pause >= give_up_at:
                raise outcome.error
            await asyncio.sleep(pause)

    async def _try(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None,
        query: Mapping[str, str],
        head: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> Response | _Failure:
        node = self.nodes[self._node % len(self.nodes)]
        try:
            async with self.session().request(
                method, node + path, data=body, params=query, headers=head, timeout=timeout
            ) as answer:
                response = Response(answer.status, answer.headers, await answer.read())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return _Failure(Unavailable(f"cannot reach {node}: {error}"), applied=False)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = str(error) or type(error).__name__
            return _Failure(Unavailable(f"{node} gave no answer: {text}"), applied=True)
        if response.status < 400:
            return response
        return _judge(response)


def refuse(response: Response) -> Exception:
    """The error that fits a refusal, definite or not."""
    try:
        return _judge(response).error
    except QuorateError as error:
        return error


def _judge(response: Response) -> _Failure:
    """Raises a definite refusal; returns what may be tried again."""
    try:
        problem = response.json()
    except QuorateError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": response.body[:200].decode(errors="replace")}
    retry_after = _seconds(response.headers.get("Retry-After"))
    error = error_from_problem(response.status, problem, retry_after)
    if response.status not in (502, 503, 504):
        raise error
    if not isinstance(error, Unavailable):
        error = Unavailable(str(error), status=response.status)
    applied = problem.get("code") not in NOT_APPLIED_CODES
    return _Failure(error, applied, retry_after)


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None


def _pause_seconds(tries: int, nodes: int, asked: float | None) -> float:
    """Full jitter, doubling once per round over the nodes.

    A node's Retry-After counts from the second round on: in the first one another node may know
    the new leader already."""
    rounds = min((tries - 1) // nodes, 8)
    longest = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2**rounds)
    if asked is not None and rounds > 0:
        longest = min(BACKOFF_MAX_SECONDS, max(asked, longest))
    return random.uniform(longest / 4, longest)
