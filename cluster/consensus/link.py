"""One TCP connection to another member: handshake, frames, nothing about Raft.

A link lives through greeting -> hello -> up -> closed and never goes back; a new connection is a
new link with a higher epoch, so a frame of an old one can be told apart.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import socket
import ssl
from typing import TYPE_CHECKING, cast

from .handshake import Handshake, HandshakeError
from .refusals import TOLD
from .tls import node_ids, reason_of
from .wire import (
    EMPTY,
    FRAME_BYTES_MAX,
    HEAD_BYTES_MAX,
    Blob,
    FrameDecoder,
    FrameError,
    Hello,
    Message,
    Refusal,
    encode_frame,
)

if TYPE_CHECKING:
    from .mesh import Mesh

logger = logging.getLogger("quorate.consensus.link")

WRITE_HIGH_BYTES = 4 << 20
WRITE_DROP_BYTES = 96 << 20  # a peer that lets so much pile up is cut off
UNACKNOWLEDGED_MAX_MS = 2000
JOIN_BYTES = 16 << 10  # small frames are joined into one write


class LinkState(enum.Enum):
    GREETING = 1
    HELLO = 2
    UP = 3
    CLOSED = 4


class Link(asyncio.Protocol):
    """Both dialed and accepted connections; `peer` is known once the hello was accepted."""

    def __init__(self, mesh: Mesh, key: bytes, dialed: str | None) -> None:
        self._mesh = mesh
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder(HEAD_BYTES_MAX)  # room for a hello; a member may say more
        self.dialed = dialed
        self.source = ""  # the address an accepted connection came from
        self.certified: frozenset[str] | None = None  # the ids in its certificate, with TLS
        self.handshake = Handshake(key, is_dialer=dialed is not None)
        self.state = LinkState.GREETING
        self.peer = ""
        self.epoch = 0
        self.hello: Hello | None = None
        self.writable = True
        self.last_read = mesh.clock()
        self.last_write = self.last_read
        self.closed = asyncio.get_running_loop().create_future()
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def initiator(self) -> str:
        return self._mesh.node_id if self.dialed is not None else self.peer

    @property
    def is_receiving(self) -> bool:
        return self._decoder.is_inside_frame

    def expect_handshake(self) -> None:
        """From now on there is a limit to how long the other side may take."""
        self._deadline = asyncio.get_running_loop().call_later(
            self._mesh.handshake_timeout_s, self._give_up
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.state is LinkState.CLOSED:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        if self._mesh.certificates is not None:
            self.certified = node_ids(transport.get_extra_info("peercert"))
            if self.dialed is not None and self.dialed not in self.certified:
                self.close("wrong_certificate")
                return
        self._tune()
        if self._deadline is None:
            self.expect_handshake()
        greeting = self.handshake.begin()
        if greeting:
            self._transport.write(greeting)

    def _tune(self) -> None:
        """No delay for small frames, and no long faith in a wire that does not acknowledge: after a
        cut TCP would back off for longer than the cut lasted, a new connection is there at once.
        A peer that only sleeps is not meant: its kernel acknowledges."""
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        if sock is None:
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MAX_MS)

    def data_received(self, data: bytes) -> None:
        self.last_read = self._mesh.clock()
        counters = self._mesh.counters
        counters.bytes_in += len(data)
        try:
            if self.state is LinkState.GREETING:
                self._greet(data)
            elif self.state is not LinkState.CLOSED:
                self._frames(data)
        except (HandshakeError, FrameError) as error:
            self.close(error.reason)

    def _greet(self, data: bytes) -> None:
        answer = self.handshake.feed(data)
        if answer and self._transport is not None:
            self._transport.write(answer)
        if self.handshake.rest is None:
            return
        self.state = LinkState.HELLO
        if self.dialed is not None:
            self.send(self._mesh.hello())
        if self.handshake.rest:
            self._frames(self.handshake.rest)

    def _frames(self, data: bytes) -> None:
        for message, blob in self._decoder.frames(data):
            if isinstance(message, Refusal):
                self._mesh.refused(self, message.reason)
                raise HandshakeError("refused_by_peer")
            if self.state is LinkState.HELLO:
                self._meet(message)
            elif self.state is LinkState.UP:
                self._mesh.counters.frames_in += 1
                self._mesh.receive(self, message, blob)

    def _meet(self, message: Message) -> None:
        if not isinstance(message, Hello):
            raise HandshakeError("no_hello")
        self.hello = message
        self.peer = message.node_id
        if self.certified is not None and message.node_id not in self.certified:
            raise HandshakeError("wrong_certificate")
        refusal = self._mesh.judge(self)
        if refusal:
            self.refuse(refusal)
            return
        if self._deadline is not None:
            self._deadline.cancel()
        if self.dialed is None:
            self.send(self._mesh.hello())
        self.state = LinkState.UP
        self._decoder.bytes_max = FRAME_BYTES_MAX
        self._mesh.link_up(self)

    def refuse(self, reason: str) -> None:
        """Says why, then closes; a node that asks for an introduction is told who answers it."""
        if reason == "introduction" and self.dialed is None:
            self.send(self._mesh.hello())
        elif reason in TOLD:
            self.send(Refusal(reason))
        transport, self._transport = self._transport, None
        self._finish(reason)
        if transport is not None:
            transport.close()  # unlike abort(), lets the last frame out

    def send(self, message: Message, blob: Blob = EMPTY) -> bool:
        """False when the link is closed or hopelessly full (then it is closed)."""
        transport = self._transport
        if transport is None or self.state is LinkState.CLOSED:
            return False
        head = encode_frame(message, blob)
        if transport.get_write_buffer_size() > WRITE_DROP_BYTES:
            self.close("write_overflow")
            return False
        if not blob.size:
            transport.write(head)
        elif blob.size <= JOIN_BYTES:
            transport.write(b"".join((head, *blob.parts)))
        else:
            transport.writelines((head, *blob.parts))
        self.last_write = self._mesh.clock()
        counters = self._mesh.counters
        counters.frames_out += 1
        counters.bytes_out += len(head) + blob.size
        return True

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._mesh.wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self.state is LinkState.UP:
            logger.info("the link with %s broke: %r", self.peer, exc)
        if isinstance(exc, ssl.SSLError):
            self._finish(reason_of(exc))
        elif self.state is LinkState.UP:
            self._finish("")
        else:
            self._finish("connection_lost" if self.dialed is None else "hung_up")

    def close(self, reason: str) -> None:
        """Drops the connection at once; `reason` is counted ("" counts nothing)."""
        self._finish(reason)
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, reason: str) -> None:
        if self.state is LinkState.CLOSED:
            return
        was_up = self.state is LinkState.UP
        self.state = LinkState.CLOSED
        if self._deadline is not None:
            self._deadline.cancel()
        if reason:
            self._mesh.counters.dropped[reason] += 1
        if not self.closed.done():
            self.closed.set_result(None)
        self._mesh.link_down(self, reason, was_up=was_up)

    def _give_up(self) -> None:
        if self.state in (LinkState.GREETING, LinkState.HELLO):
            self.close("handshake_timeout")
