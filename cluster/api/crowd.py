"""What a node without file descriptors says to new connections, while it can still say anything.

Whoever is connected already is served as ever, and the last descriptors are left to journal,
snapshots, other nodes and to whoever looks what is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

LOOKING = (b"GET /metrics", b"GET /livez", b"GET /readyz", b"GET /v1/debug", b"GET /v1/cluster")
PATIENCE_S = 5.0

PassOn = Callable[[asyncio.Transport, bytes], None]


class Files(Protocol):
    """What knows how many descriptors there are."""

    def opened(self, number: int) -> bool:
        """A connection got this descriptor; False when there are too few left for it."""


class Entrance(asyncio.Protocol):
    """The first to see a connection: lets it into `inside`, or has it told why not."""

    def __init__(
        self, files: Files, inside: asyncio.Protocol, refusal: Callable[[], bytes], pass_on: PassOn
    ) -> None:
        self._files = files
        self._inside = inside
        self._refusal = refusal
        self._pass_on = pass_on

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plain = cast(asyncio.Transport, transport)
        if self._files.opened(transport.get_extra_info("socket").fileno()):
            following: asyncio.Protocol = self._inside
        else:
            following = _Refused(self._refusal, self._pass_on)
        plain.set_protocol(following)
        following.connection_made(transport)


class _Refused(asyncio.Protocol):
    """Waits for the request, as an answer before it would be taken for a broken connection."""

    def __init__(self, refusal: Callable[[], bytes], pass_on: PassOn) -> None:
        self._refusal = refusal
        self._pass_on = pass_on
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._patience = asyncio.get_running_loop().call_later(PATIENCE_S, transport.close)

    def data_received(self, data: bytes) -> None:
        self._patience.cancel()
        transport = self._transport
        assert transport is not None
        if data.startswith(LOOKING):
            self._pass_on(transport, data)
        elif not transport.is_closing():
            transport.write(self._refusal())
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._patience.cancel()
