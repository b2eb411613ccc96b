"""The frames of the worker stream as typed structs, so that decoding is one call in C.

Follows the wire exactly: one MessagePack array `[type, ...]`; fields are only ever appended.
"""

from __future__ import annotations

from typing import Any

import msgspec

SUBPROTOCOL = "quorate.msgpack.v1"
COLUMNS = "columns"  # frames `like` and `completed`, between peers that both speak them

Key = tuple[int, int]  # (job_id, attempt)


class Assignment(msgspec.Struct, array_like=True, gc=False):
    """One job to run. `timeout_ms` (0: none) ends at the latest at the job's `deadline_ms`."""

    job_id: int
    attempt: int
    name: str
    queue: str = "default"
    payload: bytes | None = b""
    timeout_ms: int = 0
    deadline_ms: int = 0
    failures: int = 0
    max_retries: int = 0


class Registered(msgspec.Struct, array_like=True, tag="registered"):
    """The registration is accepted; `stale` names attempts this worker holds no longer."""

    worker_id: str
    ttl_seconds: float
    stale: list[Key] = []
    speaks: list[str] = []


class Jobs(msgspec.Struct, array_like=True, tag="jobs", gc=False):
    """Jobs to run now."""

    jobs: list[Assignment]


class Like(msgspec.Struct, array_like=True, tag="like", gc=False):
    """Jobs of one kind to run now; `failures` is None when none of them has failed yet."""

    name: str
    queue: str
    timeout_ms: int
    max_retries: int
    job_ids: list[int]
    attempts: list[int]
    payloads: list[bytes | None]
    failures: list[int] | None = None


class Cancel(msgspec.Struct, array_like=True, tag="cancel"):
    """Attempts to stop; no result is expected."""

    keys: list[Key]


class Stop(msgspec.Struct, array_like=True, tag="stop"):
    """Attempts to stop; how each of them ended is awaited."""

    keys: list[Key]


class Ack(msgspec.Struct, array_like=True, tag="ack", gc=False):
    """A frame of results is committed; the listed ids were refused as stale."""

    seq: int
    stale: list[int] = []


class Drain(msgspec.Struct, array_like=True, tag="drain"):
    """Finish what runs, take no more, leave."""


class Moved(msgspec.Struct, array_like=True, tag="moved"):
    """This node leads no longer; `leader` is the URL of the new one if known."""

    leader: str | None = None


class Error(msgspec.Struct, array_like=True, tag="error"):
    """The node ends the conversation."""

    code: str = "error"
    message: str = ""


class Heartbeat(msgspec.Struct, array_like=True, tag="heartbeat"):
    """The node lives."""


Incoming = Registered | Jobs | Like | Cancel | Stop | Ack | Drain | Moved | Error | Heartbeat
KNOWN = frozenset(
    {"registered", "jobs", "like", "cancel", "stop", "ack", "drain", "moved", "error", "heartbeat"}
)

_decode_typed = msgspec.msgpack.Decoder(Incoming).decode
_decode_any = msgspec.msgpack.Decoder(list[Any]).decode
encode = msgspec.msgpack.Encoder().encode


def decode(raw: bytes) -> Incoming | None:
    """The frame, or None for a type this release does not know.

    Raises ValueError (msgspec.MsgspecError) for a malformed frame of a known type.
    """
    try:
        frame: Incoming = _decode_typed(raw)
    except msgspec.ValidationError:
        parts = _decode_any(raw)
        if parts and parts[0] not in KNOWN:
            return None
        raise
    return frame
