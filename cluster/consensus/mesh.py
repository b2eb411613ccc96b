"""The connections to all other members, and what arrives over them, in order, as events.

Both sides dial, so a link comes back as soon as either notices; of two links the one dialed by the
smaller node id stays. It carries messages and keeps links alive; their meaning is not its business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .counters import Counters
from .interface import ConsensusConfig
from .link import Link, LinkState
from .listener import Listener, split_address
from .pin import now, token, uniform
from .refusals import TOLD, report
from .resolver import Resolver
from .strangers import WaitingRoom, source_of
from .tls import Certificates, reason_of
from .wire import EMPTY, PROTOCOL, Blob, Hello, Message, Ping

logger = logging.getLogger("quorate.consensus.mesh")

REDIAL_MIN_S = 0.05
REDIAL_MAX_S = 0.5
CONNECT_TIMEOUT_S = 1.0
PING_AFTER_S = 0.5
SILENCE_MAX_S = 10.0
TWIN_SILENCE_S = 1.2  # more than two pings: whoever said nothing for so long may be replaced
CERTIFICATES_EVERY_S = 5.0
BOOT_BYTES = 8
INTRODUCE_EVERY_S = 0.5
INTRODUCE_SAY_S = 10.0


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


@dataclass(frozen=True)
class Refused:
    """The peer closed the connection on purpose and said why."""

    peer: str
    reason: str


Event = Connected | Disconnected | Received | Refused


class Network(Protocol):
    """What the core asks of a network; the simulation brings its own."""

    inbox: deque[Event]

    def send(self, peer: str, message: Message, blob: Blob = EMPTY) -> bool: ...
    def epoch(self, peer: str) -> int: ...
    def writable(self, peer: str) -> bool: ...
    def is_receiving(self, peer: str) -> bool: ...
    def folder(self, peer: str) -> str:
        """The data folder id of a connected peer, or of this node itself; "" if unknown."""

    def set_peers(self, peers: tuple[str, ...]) -> None:
        """Whom to stay connected with from now on."""


class Mesh:
    """Asyncio implementation of Network."""

    handshake_timeout_s = 2.0

    def __init__(
        self,
        config: ConsensusConfig,
        key: bytes,
        counters: Counters,
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._key = key
        self._cluster_id = b""
        self._folder_id = ""
        self._peers: dict[str, asyncio.Task[None] | None] = {}
        self._boot_id = token(BOOT_BYTES)
        self._links: dict[str, Link] = {}
        self._dialing: set[Link] = set()
        self._strangers: WaitingRoom[Link] = WaitingRoom()
        self._last_epoch = 0
        self._metas: dict[str, dict[str, str]] = {}
        protected = config.cluster_secret is not None or config.tls is not None
        self._listener = Listener(config.listen, counters, protected=protected)
        self._resolver = Resolver()
        self._welcomes: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._started = False
        self._introduced: asyncio.Future[bytes] | None = None
        self.vet: Callable[[str, str], str] = lambda node_id, folder_id: ""
        self.certificates: Certificates | None = None
        self.node_id = config.node_id
        self.counters = counters
        self.wake = wake
        self.clock = now
        self.inbox: deque[Event] = deque()

    # Life ----------------------------------------------------------------------------------

    def bind(self) -> None:
        """Takes the port without accepting yet; ConsensusStartError says what is wrong."""
        config = self._config
        if config.tls is not None:
            self.certificates = Certificates(config.tls, config.node_id)
        self._listener.bind()

    def release(self) -> None:
        """Gives the port back when the start fails later on."""
        self._listener.release()

    async def introduce(self) -> bytes:
        """Asks the given members for the cluster's id until one answers."""
        self._introduced = asyncio.get_running_loop().create_future()
        waited = 0.0
        while not self._introduced.done():
            for peer in self._config.peers:
                link = await self._dial(peer)
                if link is not None:
                    await asyncio.wait([link.closed], timeout=CONNECT_TIMEOUT_S)
            if not self._introduced.done():
                if waited % INTRODUCE_SAY_S == 0:
                    names = ", ".join(self._config.peers)
                    logger.warning("none of %s answers; trying on", names)
                waited += INTRODUCE_EVERY_S
                await asyncio.sleep(INTRODUCE_EVERY_S)
        return self._introduced.result()

    def identify(self, cluster_id: bytes, folder_id: str) -> None:
        """Told before `start()`: what this node says of itself."""
        self._cluster_id = cluster_id
        self._folder_id = folder_id

    async def start(self) -> None:
        self._started = True
        self._listener.start(self._welcome)
        self._tasks = [
            asyncio.create_task(self._keep_alive()),
            asyncio.create_task(self._keep_certified()),
        ]
        for peer in self._peers:
            self._peers[peer] = asyncio.create_task(self._keep_dialed(peer))

    async def close(self) -> None:
        self.abort()
        for task in self._all_tasks():
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []
        self._peers = {}

    def abort(self) -> None:
        """Drops everything at once, as a crash would."""
        self._closing = True
        for task in self._all_tasks():
            task.cancel()
        self.release()
        for link in [*self._links.values(), *self._dialing, *self._strangers.inside()]:
            link.close("")

    def _all_tasks(self) -> list[asyncio.Task[None]]:
        return [*self._tasks, *(task for task in self._peers.values() if task is not None)]

    # Network -------------------------------------------------------------------------------

    def folder(self, peer: str) -> str:
        if peer == self.node_id:
            return self._folder_id
        link = self._links.get(peer)
        return link.hello.folder_id if link is not None and link.hello is not None else ""

    def set_peers(self, peers: tuple[str, ...]) -> None:
        for peer in [peer for peer in self._peers if peer not in peers]:
            task = self._peers.pop(peer)
            if task is not None:
                task.cancel()
            link = self._links.get(peer)
            if link is not None:
                link.refuse(self.vet(peer, self.folder(peer)) or "not_a_member")
        for peer, link in list(self._links.items()):  # what was in order may not be any more
            if refusal := self.vet(peer, self.folder(peer)):
                link.refuse(refusal)
        for peer in peers:
            if peer not in self._peers and peer != self.node_id:
                self._peers[peer] = (
                    asyncio.create_task(self._keep_dialed(peer)) if self._started else None
                )

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

    def hello(self) -> Hello:
        config = self._config
        return Hello(
            PROTOCOL,
            self._cluster_id,
            config.node_id,
            self._folder_id,
            self._boot_id,
            config.meta,
        )

    def judge(self, link: Link) -> str:
        """Why this link is not wanted, or "": membership first, then which of two links stays."""
        hello = link.hello
        assert hello is not None
        if hello.protocol != PROTOCOL:
            return "other_protocol"
        if not self._cluster_id:
            return self._meet_first(hello)
        if hello.cluster_id != self._cluster_id:
            return "other_cluster" if hello.cluster_id else "introduction"
        if hello.node_id == self.node_id:
            return "this_node_itself" if hello.boot_id == self._boot_id else "same_id_twice"
        if refusal := self.vet(hello.node_id, hello.folder_id):
            return refusal
        if link.dialed not in (None, hello.node_id):
            return "wrong_member"
        current = self._links.get(hello.node_id)
        if current is None or current.hello is None:
            return ""
        if current.hello.boot_id != hello.boot_id:
            # A process that died has closed its link, or is silent at least: this one is alive.
            alive = self.clock() - current.last_read < TWIN_SILENCE_S
            return "same_id_twice" if alive else ""
        preferred = min(self.node_id, hello.node_id)
        if current.initiator == preferred and link.initiator != preferred:
            return "second_link"
        return ""

    def _meet_first(self, hello: Hello) -> str:
        """This node waits to be added: any member may tell it the cluster's id."""
        if self._introduced is not None and not self._introduced.done() and hello.cluster_id:
            self._introduced.set_result(hello.cluster_id)
        return "introduction"

    def refused(self, link: Link, reason: str) -> None:
        """The peer closes this connection and says why."""
        if reason in TOLD:
            self.inbox.append(Refused(link.dialed or link.peer, reason))
            self.wake()

    def link_up(self, link: Link) -> None:
        current = self._links.get(link.peer)
        if current is not None:
            current.close("replaced_link")
        self._forget(link)
        self._last_epoch += 1
        link.epoch = self._last_epoch
        self._links[link.peer] = link
        assert link.hello is not None
        self._metas[link.peer] = link.hello.meta
        self.counters.connections += 1
        self.inbox.append(Connected(link.peer, link.epoch))
        self.wake()

    def link_down(self, link: Link, reason: str, *, was_up: bool) -> None:
        self._forget(link)
        if was_up and self._links.get(link.peer) is link:
            del self._links[link.peer]
            self.inbox.append(Disconnected(link.peer, link.epoch))
            self.wake()
        elif reason:
            whom = link.dialed or " at ".join(filter(None, (link.peer, link.source)))
            report(self.counters, reason, whom)

    def _forget(self, link: Link) -> None:
        self._dialing.discard(link)
        self._strangers.leave(link)

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
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                addresses = await self._resolver.addresses(host)
            for address in addresses:
                link = Link(self, self._key, peer)
                if await self._connect(link, address, port):
                    return link
        return None

    async def _connect(self, link: Link, address: str, port: int) -> bool:
        loop = asyncio.get_running_loop()
        tls = self.certificates.client if self.certificates is not None else None
        self._dialing.add(link)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.create_connection(
                    lambda: link, address, port, ssl=tls, server_hostname="" if tls else None
                )
        except ssl.SSLError as error:
            link.close(reason_of(error))
        except (ConnectionResetError, ConnectionAbortedError):
            link.close("hung_up")  # as a TLS listener does without a word
        except (OSError, TimeoutError):
            self._dialing.discard(link)  # nobody is there: that is no news
            return False
        return True

    def _welcome(self, accepted: socket.socket, address: str) -> None:
        """A place in the waiting room from the first moment on: TLS alone can take seconds."""
        link = Link(self, self._key, None)
        link.source = address
        leaves = self._strangers.enter(link, source_of(address))
        if leaves is not None:
            leaves.close("too_many_strangers")
        link.expect_handshake()
        task = asyncio.create_task(self._greet(link, accepted))
        link.closed.add_done_callback(lambda _: task.cancel())
        self._welcomes.add(task)
        task.add_done_callback(self._welcomes.discard)

    async def _greet(self, link: Link, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        tls = self.certificates.server if self.certificates is not None else None
        try:
            await loop.connect_accepted_socket(lambda: link, accepted, ssl=tls)
        except OSError as error:
            link.close(reason_of(error))
        finally:
            if link.state is LinkState.CLOSED:
                accepted.close()

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

    async def _keep_certified(self) -> None:
        """Looks for new certificates, so that replacing them needs no restart."""
        while self.certificates is not None:
            self.certificates.warn_of_expiry()
            self.counters.tls_days_left = self.certificates.days_left()
            await asyncio.sleep(CERTIFICATES_EVERY_S)
            self.certificates.refresh()
