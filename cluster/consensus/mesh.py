"""The connections to all other members, and what arrives over them, in order, as events.

Both sides dial, so a link comes back as soon as either notices; of two links the one dialed by the
smaller node id stays. It carries messages and keeps links alive; their meaning is not its business.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .counters import Counters
from .interface import ConsensusConfig, ConsensusStartError
from .link import Link, LinkState
from .pin import now, token, uniform
from .wire import EMPTY, PROTOCOL, Blob, Hello, Message, Ping

logger = logging.getLogger("quorate.consensus.mesh")

STRANGERS_MAX = 64
REDIAL_MIN_S = 0.05
REDIAL_MAX_S = 0.5
CONNECT_TIMEOUT_S = 1.0
PING_AFTER_S = 0.5
SILENCE_MAX_S = 10.0
BOOT_BYTES = 8


@dataclass(frozen=True)
class Connected:
    peer: str
    epoch: int


@dataclass(frozen=True)
class Disconnected:
    peer: str
    epoch: int


@dataclass(frozen=True)
class Received:
    peer: str
    epoch: int
    message: Message
    blob: bytes


Event = Connected | Disconnected | Received


class Network(Protocol):
    """What the core asks of a network; the simulation brings its own."""

    inbox: deque[Event]

    def send(self, peer: str, message: Message, blob: Blob = EMPTY) -> bool: ...
    def epoch(self, peer: str) -> int: ...
    def writable(self, peer: str) -> bool: ...
    def is_receiving(self, peer: str) -> bool: ...


def split_address(address: str) -> tuple[str, int]:
    """("host", port); ConsensusStartError names an address that is none."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ConsensusStartError(f"{address!r} is not an address; write host:port")
    host = host.strip("[]")
    try:
        host.encode("idna")  # else the resolver raises it in the task that dials, unseen
    except UnicodeError as error:
        raise ConsensusStartError(f"{host!r} in {address!r} is not a host name") from error
    return host, int(port)


class Mesh:
    """Asyncio implementation of Network."""

    handshake_timeout_s = 2.0

    def __init__(
        self,
        config: ConsensusConfig,
        key: bytes,
        cluster_id: bytes,
        counters: Counters,
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._key = key
        self._cluster_id = cluster_id
        self._boot_id = token(BOOT_BYTES)
        self._links: dict[str, Link] = {}
        self._strangers: set[Link] = set()
        self._last_epoch = 0
        self._metas: dict[str, dict[str, str]] = {}
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self.node_id = config.node_id
        self.counters = counters
        self.wake = wake
        self.clock = now
        self.inbox: deque[Event] = deque()

    # Life ----------------------------------------------------------------------------------

    def bind(self) -> None:
        """Takes the port without accepting yet; ConsensusStartError names the port and the fix."""
        host, port = split_address(self._config.listen)
        try:
            infos = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, kind, protocol, _, address = infos[0]
            self._socket = socket.socket(family, kind, protocol)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            self._socket.listen(STRANGERS_MAX)  # so that a second process gets a clear refusal
        except OSError as error:
            self.release()
            fix = "choose another host or port"
            if error.errno == errno.EADDRINUSE:
                fix = "stop the program that uses it or choose another port"
            raise ConsensusStartError(
                f"cannot listen on {self._config.listen}: {error.strerror or error}; {fix}"
            ) from error

    def release(self) -> None:
        """Gives the port back when the start fails later on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._socket is not None
        self._server = await loop.create_server(
            lambda: Link(self, self._key, None), sock=self._socket, backlog=STRANGERS_MAX
        )
        self._tasks = [
            asyncio.create_task(self._keep_dialed(peer)) for peer in self._config.peers
        ] + [asyncio.create_task(self._keep_alive())]

    async def close(self) -> None:
        self.abort()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    def abort(self) -> None:
        """Drops everything at once, as a crash would."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        if self._server is not None:
            self._server.close()
            self._server = None
        self.release()
        for link in [*self._links.values(), *self._strangers]:
            link.close("")

    # Network -------------------------------------------------------------------------------

    def send(self, peer: str, message: Message, blob: Blob = EMPTY) -> bool:
        link = self._links.get(peer)
        return link is not None and link.send(message, blob)

    def epoch(self, peer: str) -> int:
        link = self._links.get(peer)
        return link.epoch if link is not None else 0

    def writable(self, peer: str) -> bool:
        link = self._links.get(peer)
        return link is not None and link.writable

    def is_receiving(self, peer: str) -> bool:
        """Part of a frame came from the peer within the last moments."""
        link = self._links.get(peer)
        return link is not None and link.is_receiving and self.clock() - link.last_read < 0.25

    def meta(self, peer: str) -> dict[str, str]:
        return self._metas.get(peer, {})

    def last_contact_ms(self, peer: str) -> float | None:
        link = self._links.get(peer)
        return None if link is None else round((self.clock() - link.last_read) * 1000, 1)

    # Called by links -----------------------------------------------------------------------

    def admit(self, link: Link) -> bool:
        """False for one accepted connection too many; own dials are always welcome."""
        waiting = sum(stranger.dialed is None for stranger in self._strangers)
        if self._closing or (link.dialed is None and waiting >= STRANGERS_MAX):
            return False
        self._strangers.add(link)
        return True

    def hello(self) -> Hello:
        config = self._config
        return Hello(PROTOCOL, self._cluster_id, config.node_id, self._boot_id, config.meta)

    def judge(self, link: Link) -> str:
        """Why this link is not wanted, or "": membership first, then which of two links stays."""
        hello = link.hello
        assert hello is not None
        if hello.protocol != PROTOCOL:
            return "other_protocol"
        if hello.cluster_id != self._cluster_id:
            return "other_cluster"
        if hello.node_id not in self._config.peers:
            return "not_a_member"
        if link.dialed not in (None, hello.node_id):
            return "wrong_member"
        current = self._links.get(hello.node_id)
        if current is None or current.hello is None or current.hello.boot_id != hello.boot_id:
            return ""
        preferred = min(self.node_id, hello.node_id)
        if current.initiator == preferred and link.initiator != preferred:
            return "second_link"
        return ""

    def link_up(self, link: Link) -> None:
        current = self._links.get(link.peer)
        if current is not None:
            current.close("replaced_link")
        self._strangers.discard(link)
        self._last_epoch += 1
        link.epoch = self._last_epoch
        self._links[link.peer] = link
        assert link.hello is not None
        self._metas[link.peer] = link.hello.meta
        self.counters.connections += 1
        self.inbox.append(Connected(link.peer, link.epoch))
        self.wake()

    def link_down(self, link: Link, reason: str, *, was_up: bool) -> None:
        self._strangers.discard(link)
        if was_up and self._links.get(link.peer) is link:
            del self._links[link.peer]
            self.inbox.append(Disconnected(link.peer, link.epoch))
            self.wake()
        elif reason in ("bad_proof", "other_cluster", "not_a_member", "other_protocol"):
            times = self.counters.dropped[reason]
            if times & (times - 1) == 0:  # the 1st, 2nd, 4th, 8th ...: both sides dial for ever
                whom = link.dialed or link.peer or "a stranger"
                logger.warning("connection with %s refused: %s (%d times)", whom, reason, times)

    def receive(self, link: Link, message: Message, blob: bytes) -> None:
        if not isinstance(message, Ping):
            self.inbox.append(Received(link.peer, link.epoch, message, blob))
            self.wake()

    # Tasks ---------------------------------------------------------------------------------

    async def _keep_dialed(self, peer: str) -> None:
        """Dials whenever there is no link; the larger id hangs back a little to avoid two links."""
        delay = REDIAL_MIN_S
        if self.node_id > peer:
            await asyncio.sleep(uniform(REDIAL_MIN_S, 2 * REDIAL_MIN_S))
        while not self._closing:
            link = self._links.get(peer)
            if link is None:
                link = await self._dial(peer)
            if link is not None:
                await asyncio.wait([link.closed])  # unlike await, leaves it uncancelled
                if link.epoch:
                    delay = REDIAL_MIN_S
            await asyncio.sleep(uniform(delay / 2, delay))
            delay = min(REDIAL_MAX_S, delay * 1.5)

    async def _dial(self, peer: str) -> Link | None:
        host, port = split_address(peer)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, link = await loop.create_connection(
                    lambda: Link(self, self._key, peer), host, port
                )
        except (OSError, TimeoutError):
            return None
        return link

    async def _keep_alive(self) -> None:
        """Pings idle links and cuts silent ones, unless this node itself was asleep."""
        expected = self.clock() + PING_AFTER_S
        while True:
            await asyncio.sleep(PING_AFTER_S)
            late = self.clock() - expected
            expected = self.clock() + PING_AFTER_S
            for link in list(self._links.values()):
                if link.state is not LinkState.UP:
                    continue
                if self.clock() - link.last_write >= PING_AFTER_S:
                    link.send(Ping())
                if self.clock() - link.last_read > SILENCE_MAX_S and late < 1.0:
                    link.close("silent_link")
