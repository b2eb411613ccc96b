"""What a node and its ingest processes say to each other: MessagePack, each with its length before.

Both ends are of the same release and the same machine, so nothing here needs to be compatible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Struct

from cluster.machine.commands import SubmitJobs
from cluster.machine.results import Submitted
from cluster.machine.views import JobView
from cluster.settings import Settings

LENGTH_BYTES = 4


class Begin(Struct, array_like=True, tag="begin"):
    """Listen, with these settings."""

    settings: dict[str, Any]


class Clock(Struct, array_like=True, tag="clock"):
    """How far the node's clock is ahead of the machine's: not at all, unless that is refused."""

    ahead_ms: int


class Stop(Struct, array_like=True, tag="stop"):
    """Take nothing more, answer what is under way, and end."""


class Submitting(Struct, array_like=True, tag="submit"):
    """A submission that has been judged."""

    number: int
    command: SubmitJobs
    is_lone: bool  # the answers show the jobs


class Accepted(Struct, array_like=True, tag="accepted"):
    """`views` are without payloads, in the order of the ids; only of lone jobs."""

    number: int
    result: Submitted
    index: int
    leader: str | None
    views: list[JobView]


class Declined(Struct, array_like=True, tag="declined"):
    """Nothing was done, for a reason that the ordinary server finds, too."""

    number: int


class Unknown(Struct, array_like=True, tag="unknown"):
    """It may have been done or not."""

    number: int
    index: int
    leader: str | None


class Listening(Struct, array_like=True, tag="listening"):
    """The port is open; or, with a reason, cannot be."""

    problem: str = ""


Message = Begin | Clock | Stop | Submitting | Accepted | Declined | Unknown | Listening

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class Wire(asyncio.Protocol):
    """One end of the line between a node and an ingest process."""

    def __init__(self, heard: Callable[[Message], None], lost: Callable[[], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()

    def send(self, message: Message) -> None:
        if self._transport is not None:
            data = _encode(message)
            self._transport.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        start = 0
        while len(received) - start >= LENGTH_BYTES:
            stop = start + LENGTH_BYTES
            stop += int.from_bytes(received[start:stop], "big")
            if len(received) < stop:
                break
            self._heard(_decode(memoryview(received)[start + LENGTH_BYTES : stop].tobytes()))
            start = stop
        del received[:start]

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost()


def settings_to_dict(settings: Settings) -> dict[str, Any]:
    values = msgspec.structs.asdict(settings)
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}


def settings_from_dict(values: dict[str, Any]) -> Settings:
    return msgspec.convert(values, Settings, dec_hook=lambda kind, value: kind(value))
