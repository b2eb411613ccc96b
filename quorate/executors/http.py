"""The built-in task `http`: one HTTP request, judged by its status.

Carries the fence of the attempt in headers, so that a receiver can refuse repetitions.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec

from ..context import GetContext
from ..errors import NonRetryable
from .base import Executor, Tools, read_payload

BODY_BYTES_MAX = 64 * 1024  # of the answer, kept in the output


class HttpFailed(Exception):
    """The answer (or its absence) may be different next time."""


class HttpRefused(NonRetryable):
    """The answer says that the request itself is wrong."""


class HttpPayload(msgspec.Struct, forbid_unknown_fields=True):
    """The request; `json` or `body`, not both. `expect_status` defaults to any 2xx."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = {}
    json: Any = msgspec.UNSET
    body: str | None = None
    expect_status: int | list[int] | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError("url must start with http:// or https://")
        if self.body is not None and self.json is not msgspec.UNSET:
            raise ValueError("give json or body, not both")

    def expects(self, status: int) -> bool:
        """True when `status` means success."""
        if self.expect_status is None:
            return 200 <= status < 300
        if isinstance(self.expect_status, int):
            return status == self.expect_status
        return status in self.expect_status


_decoder = msgspec.json.Decoder(HttpPayload)


class Http(Executor):
    """Sends requests over one session per worker."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def start(self, payload: bytes, get_context: GetContext) -> dict[str, Any]:
        """Output: {"status": 200, "body": JSON value or text}."""
        asked: HttpPayload = read_payload(payload, _decoder, "http")
        context = get_context()
        headers = {
            "Idempotency-Key": f"{context.job_id}-{context.attempt}",
            "X-Quorate-Job": context.job_id,
            "X-Quorate-Attempt": str(context.attempt),
        }
        data = None if asked.body is None else asked.body.encode()
        if asked.json is not msgspec.UNSET:
            data = msgspec.json.encode(asked.json)
            headers["Content-Type"] = "application/json"
        headers.update(asked.headers)
        try:
            async with self._tools.session().request(
                asked.method.upper(),
                asked.url,
                data=data,
                headers=headers,
                allow_redirects=asked.expect_status is None,  # else a 3xx may be what is expected
            ) as answer:
                body = await _read_some(answer)
                status, kind = answer.status, answer.content_type
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError) as error:
            raise HttpRefused(f"cannot request {asked.url!r}: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise HttpFailed(
                f"{asked.method} {asked.url}: {error or type(error).__name__}"
            ) from error
        context.log(f"{asked.method} {asked.url} -> {status}")
        if not asked.expects(status):
            _refuse(asked, status, body)
        return {"status": status, "body": _value(body, kind)}


async def _read_some(answer: aiohttp.ClientResponse) -> bytes:
    """At most BODY_BYTES_MAX bytes; the rest is not wanted and the connection is dropped."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) >= BODY_BYTES_MAX:
            answer.close()
            break
    return bytes(body[:BODY_BYTES_MAX])


def _refuse(asked: HttpPayload, status: int, body: bytes) -> None:
    excerpt = body[:200].decode(errors="replace")
    text = f"{asked.method} {asked.url} answered {status}: {excerpt}".rstrip(": ")
    if 400 <= status < 500 and status not in (408, 429):
        raise HttpRefused(text)
    raise HttpFailed(text)


def _value(body: bytes, kind: str) -> Any:
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError:
            pass  # not what it says it is; keep the text
    return body.decode(errors="replace")
