"""The port on which members are awaited: taken early, kept whatever happens, one socket at a time.

Accepts by itself, because a server of the event loop gives up listening for a while when file
descriptors run out (C12), and counts nothing that is still in its TLS handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable

from .counters import Counters
from .interface import ConsensusStartError

logger = logging.getLogger("quorate.consensus.listener")

BACKLOG = 128
ACCEPTED_AT_ONCE = 16
ACCEPT_PAUSE_S = 0.1
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Welcome = Callable[[socket.socket, str], None]


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


def is_loopback(host: str) -> bool:
    """Whether a numeric address can only be reached from this machine."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


class Listener:
    """`protected` says that strangers are kept out by a secret or by TLS."""

    def __init__(self, address: str, counters: Counters, *, protected: bool) -> None:
        self._address = address
        self._counters = counters
        self._protected = protected
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._welcome: Welcome = lambda accepted, address: accepted.close()

    def bind(self) -> None:
        """Takes the port without accepting yet; ConsensusStartError names the port and the fix."""
        host, port = split_address(self._address)
        try:
            infos = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, kind, protocol, _, address = infos[0]
            self._refuse_exposure(str(address[0]))
            self._socket = socket.socket(family, kind, protocol)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setblocking(False)
            self._socket.bind(address)
            self._socket.listen(BACKLOG)  # so that a second process gets a clear refusal
        except OSError as error:
            self.release()
            fix = "choose another host or port"
            if error.errno == errno.EADDRINUSE:
                fix = "stop the program that uses it or choose another port"
            raise ConsensusStartError(
                f"cannot listen on {self._address}: {error.strerror or error}; {fix}"
            ) from error

    def _refuse_exposure(self, host: str) -> None:
        """What a name means is known only here: even "localhost" is what /etc/hosts says."""
        if self._protected or is_loopback(host):
            return
        raise ConsensusStartError(
            f"{self._address} is {host}, which other machines can reach: set cluster_secret or "
            "raft_tls_ca, raft_tls_cert and raft_tls_key, or listen on 127.0.0.1"
        )

    def start(self, welcome: Welcome) -> None:
        """Calls `welcome(socket, address of the other side)` for every connection."""
        self._welcome = welcome
        self._loop = asyncio.get_running_loop()
        self._resume()

    def release(self) -> None:
        """Gives the port back, at whatever stage."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._socket is None:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
        self._socket.close()
        self._socket = None

    def _resume(self) -> None:
        self._pause = None
        if self._loop is not None and self._socket is not None:
            self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        """A few at a time: a flood of strangers takes turns with everything else."""
        for _ in range(ACCEPTED_AT_ONCE):
            if self._socket is None:
                return
            try:
                accepted, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(error)
                return
            accepted.setblocking(False)
            with contextlib.suppress(OSError):  # gone already: its reader will find out
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._welcome(accepted, str(address[0]))

    def _failed(self, error: OSError) -> None:
        """Nothing here stops the listening: who waits in the backlog gets in later."""
        name = f"accept_{errno.errorcode.get(error.errno or 0, 'unknown').lower()}"
        self._counters.errors[name] += 1
        if error.errno not in OUT_OF_RESOURCES:
            return  # a connection that was gone before it was accepted
        times = self._counters.errors[name]
        if times & (times - 1) == 0:
            logger.error(
                "cannot accept connections: %s (%d); raise the limit of open files",
                error.strerror,
                times,
            )
        if self._loop is not None and self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._resume)
