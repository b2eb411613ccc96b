"""The narrow part of HTTP/1.1 that the fast lane reads, and how it answers.

A head is plain when it says nothing that could change what the request means: one request line, and
headers of a short list, each once. Every other head belongs to the real parser, so this one need
not know the pitfalls of HTTP: it only has to be sure about what it accepts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from aiohttp.http import SERVER_SOFTWARE

from cluster.api.models import KEY_CHARACTERS_MAX

LEADER_HEADER, INDEX_HEADER = "X-Quorate-Leader", "X-Quorate-Index"
BACKLOG = 1_024  # connections that wait to be accepted
HEAD_BYTES_MAX = 1_024
HEAD_END = b"\r\n\r\n"

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\x21-\x7e][\x20-\x7e\t]*)?")
# What headers that mean something may say here; more than that is left to the real parser.
_MEANT = {
    b"content-length": re.compile(rb"[0-9]{1,9}"),
    b"content-type": re.compile(rb"application/json(?:;[ ]?charset=utf-8)?", re.IGNORECASE),
    b"connection": re.compile(rb"keep-alive", re.IGNORECASE),
    b"idempotency-key": re.compile(rb".{1,%d}" % KEY_CHARACTERS_MAX),
    b"prefer": re.compile(rb"return=minimal"),
}
# None of these changes what a POST does.
_IGNORED = frozenset(
    (b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"cache-control",
     b"pragma", b"traceparent", b"tracestate", b"x-request-id", b"x-real-ip", b"x-forwarded-for",
     b"x-forwarded-host", b"x-forwarded-proto", b"via")
)  # fmt: skip
PATHS = {
    b"POST /v1/jobs HTTP/1.1": "/v1/jobs",
    b"POST /v1/jobs/batch HTTP/1.1": "/v1/jobs/batch",
}


class Head(NamedTuple):
    """What a plain head says."""

    path: str
    length: int  # of the body
    key: str = ""  # Idempotency-Key
    minimal: bool = False  # Prefer: return=minimal


@lru_cache(maxsize=512)
def plain_head(head: bytes) -> Head | None:
    """A request's head (without the blank line at its end), if it is plain."""
    first, *lines = head.split(b"\r\n")
    path, fields = PATHS.get(first), _fields(lines)
    if path is None or fields is None or b"host" not in fields or b"content-length" not in fields:
        return None
    key = fields.get(b"idempotency-key", b"").decode("ascii")
    return Head(path, int(fields[b"content-length"]), key, b"prefer" in fields)


def _fields(lines: list[bytes]) -> dict[bytes, bytes] | None:
    """All headers by name; None when there is one that is not plain, or the same one twice."""
    fields: dict[bytes, bytes] = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        name, value = match[1].lower(), (match[2] or b"").rstrip(b" \t")
        meant = _MEANT.get(name)
        if name in fields or (
            name not in _IGNORED if meant is None else not meant.fullmatch(value)
        ):
            return None
        fields[name] = value
    return fields


_STATUS = {s.value: f"{s.value} {s.phrase}".encode() for s in HTTPStatus}
_INDEX, _LEADER = INDEX_HEADER.encode(), LEADER_HEADER.encode()
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


def answer(status: int, headers: Mapping[str, str], signature: bytes, body: bytes) -> bytes:
    """A whole answer; `signature` has the lines that every answer has."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return b"HTTP/1.1 %b\r\n%b%bContent-Length: %d\r\nDate: %b\r\nServer: %b\r\n\r\n%b" % (
        _STATUS[status], lines.encode(), signature, len(body), date_now(), _SERVER, body,
    )  # fmt: skip


def signature(index: int, leader: str | None) -> bytes:
    """The header lines that every answer has."""
    if leader is None:
        return b"%b: %d\r\n" % (_INDEX, index)
    return b"%b: %d\r\n%b: %b\r\n" % (_INDEX, index, _LEADER, leader.encode())
