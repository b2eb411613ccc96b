"""One row per endpoint; routing, decoding and the OpenAPI document are all derived from the rows.

A handler gets a `Call` with everything decoded and returns a struct (encoded with the row's
status), raw JSON bytes, or a response of its own. It never looks at statuses of errors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from aiohttp import web
from msgspec import Meta, Struct

from cluster.actors.services import Services
from cluster.api.codec import BodyDecoder, decode_query, encode_json

B = TypeVar("B")
Q = TypeVar("Q")
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

CONSISTENCY_TEXT = (
    "stale: what the asked node has, even without a majority. leader: what the leader has, without "
    "asking the others. linearizable: all that was acknowledged before the request, confirmed by a "
    "majority, on any node."
)
Consistency = Annotated[
    Literal["stale", "leader", "linearizable"], Meta(description=CONSISTENCY_TEXT)
]
JSON_HEADERS = {"Content-Type": "application/json"}
HISTORY_HEADER = "X-Quorate-History"
HISTORY_TEXT = (
    "incomplete: the answering node is still fetching finished jobs from the others, or nobody has "
    "them; some may be left out here."
)
SERVICES = web.AppKey("services", Services)


class Query(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What every request takes: nothing."""


class ReadQuery(Query, forbid_unknown_fields=True, frozen=True):
    """What every read of replicated state takes."""

    consistency: Consistency = "leader"


class Empty(Struct, forbid_unknown_fields=True):
    """A body that carries nothing."""


class Call(Generic[B, Q]):
    """One request, decoded. `raw` is the body as it came."""

    __slots__ = ("body", "query", "raw", "request", "services")

    def __init__(
        self, services: Services, request: web.Request, raw: bytes, body: B, query: Q
    ) -> None:
        self.services = services
        self.request = request
        self.raw = raw
        self.body = body
        self.query = query

    def path(self, name: str) -> str:
        return self.request.match_info[name]


@dataclass(frozen=True)
class Header:
    """A request header that an endpoint honours."""

    name: str
    description: str


@dataclass(frozen=True)
class Endpoint:
    """A row of the route table."""

    method: str
    path: str
    handler: Callable[[Any], Awaitable[Any]]
    summary: str
    tag: str
    status: int = 200
    body: type | None = None
    body_optional: bool = False
    query: type[Query] = Query
    answer: type | None = None
    media: tuple[str, ...] = ("application/json", "application/msgpack")
    headers: tuple[Header, ...] = ()
    local: bool = False  # answered by the node itself, never forwarded
    upgrade: bool = False  # a WebSocket: refused instead of forwarded
    decodes: bool = True  # False: the handler reads the body itself
    patience_s: float = 30.0  # how long a forwarded request may stay silent
    past: bool = False  # tells of finished jobs, and whether some are lacking
    hands_over: bool = False  # ends leadership itself, so the old leader's answer is waited for
    problems: tuple[str, ...] = ()  # codes worth documenting

    def level_of(self, request: web.Request) -> str | None:
        """How fresh the answer must be, unchecked; None for what reads no replicated state."""
        if not issubclass(self.query, ReadQuery):
            return None
        default = self.query().consistency
        return request.query.get("consistency", default) if request.query_string else default


class Routes:
    """The rows of one resource, in the order of their definition."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._rows: list[Endpoint] = []

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._rows)

    def add(self, method: str, path: str, summary: str, **more: Any) -> Callable[[F], F]:
        """Register the decorated function as the handler of a row. A GET that the node does not
        answer by itself reads replicated state."""
        is_read = method == "GET" and not (more.get("local") or more.get("upgrade"))
        more.setdefault("query", ReadQuery if is_read else Query)

        def register(handler: F) -> F:
            self._rows.append(Endpoint(method, path, handler, summary, self._tag, **more))
            return handler

        return register


class Served:
    """What aiohttp calls for a row. Callable with the row as `endpoint`, so that middlewares know
    what they are in front of."""

    __slots__ = ("_decoder", "_services", "endpoint")

    # aiohttp wraps handlers that are no coroutine functions, so an instance offers a bound method.
    def __init__(self, endpoint: Endpoint, services: Services) -> None:
        self.endpoint = endpoint
        self._services = services
        self._decoder: BodyDecoder[Any] | None = None
        if endpoint.body is not None and endpoint.decodes:
            self._decoder = BodyDecoder(endpoint.body, endpoint.body_optional)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        endpoint, decoder = self.endpoint, self._decoder
        raw, body = b"", None
        if decoder is not None or not endpoint.decodes:
            raw = await request.read()
        if decoder is not None:
            body = decoder.decode(raw, request.headers.get("Content-Type"))
        query = (
            decode_query(request.query, endpoint.query)
            if request.query_string
            else endpoint.query()
        )
        answer = await endpoint.handler(Call(self._services, request, raw, body, query))
        if isinstance(answer, web.StreamResponse):
            return answer
        return respond(answer, endpoint.status)


def respond(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer; bytes are taken as JSON text."""
    if answer is None:
        return web.Response(status=204)
    body = answer if isinstance(answer, bytes) else encode_json(answer)
    if headers is None:
        return web.Response(body=body, status=status, headers=JSON_HEADERS)
    return web.Response(body=body, status=status, headers={**JSON_HEADERS, **headers})
