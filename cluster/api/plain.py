"""The narrow part of HTTP/1.1 that the fast lane reads, and how it answers.

A head is plain when it says nothing that could change what the request means: one request line, and
headers of a short list, each once. Every other head belongs to the real parser, so this one need
not know the pitfalls of HTTP: it only has to be sure about what it accepts.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from functools import lru_cache

from aiohttp.http import SERVER_SOFTWARE

HEAD_BYTES_MAX = 1_024
HEAD_END = b"\r\n\r\n"

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\x21-\x7e][\x20-\x7e\t]*)?")
_DIGITS = re.compile(rb"[0-9]{1,9}")
_JSON = re.compile(rb"application/json(?:;[ ]?charset=utf-8)?[ ]*", re.IGNORECASE)
# None of these changes what POST does here. What is not named may: the real parser takes it.
_IGNORED = frozenset(
    (b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"cache-control",
     b"pragma", b"traceparent", b"tracestate", b"x-request-id", b"x-real-ip", b"x-forwarded-for",
     b"x-forwarded-host", b"x-forwarded-proto", b"via")
)  # fmt: skip


@lru_cache(maxsize=512)
def plain_length(head: bytes) -> int | None:
    """The body's length that a request's head names (without the blank line at its end); None
    for a head that is not plain."""
    _, *lines = head.split(b"\r\n")
    length = None
    seen = set()
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        name, value = match[1].lower(), match[2] or b""
        if name in seen:
            return None
        seen.add(name)
        if name == b"content-length":
            if _DIGITS.fullmatch(value) is None:
                return None
            length = int(value)
        elif name == b"content-type":
            if _JSON.fullmatch(value) is None:
                return None
        elif name == b"connection":
            if value.lower() != b"keep-alive":
                return None
        elif name not in _IGNORED:
            return None
    return length if b"host" in seen else None


_SERVER = SERVER_SOFTWARE.encode()
_date_second = 0
_date = b""


def date_now() -> bytes:
    """The Date header's value, made once a second."""
    global _date_second, _date
    second = int(time.time())
    if second != _date_second:
        _date_second, _date = second, formatdate(second, usegmt=True).encode()
    return _date


def answer(status: bytes, headers: bytes, body: bytes) -> bytes:
    """A whole answer; `status` as in `201 Created`, `headers` whole lines."""
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\nDate: %b\r\nServer: %b\r\n\r\n%b" % (
        status, headers, len(body), date_now(), _SERVER, body,
    )  # fmt: skip
