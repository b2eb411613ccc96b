"""Open connections from one process to another, with the bytes that were read from them already.

Each travels as a row of packets, pieces of those bytes; the last one carries the descriptor. There
is one sender and one receiver and packets keep their order, so rows need no numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable

PIECE_BYTES = 64 << 10
MORE, LAST = b"+", b"."


class Sender:
    """The end that gives connections away. Never blocks."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._queue: deque[tuple[bytes, int]] = deque()  # a piece, and a descriptor or -1
        self._idle = asyncio.Event()
        self._idle.set()

    def give(self, descriptor: int, received: bytes) -> None:
        """`descriptor` is closed here when it is there."""
        last = max(len(received) - 1, 0) // PIECE_BYTES * PIECE_BYTES
        for start in range(0, last, PIECE_BYTES):
            self._queue.append((MORE + received[start : start + PIECE_BYTES], -1))
        self._queue.append((LAST + received[last:], descriptor))
        if self._idle.is_set():
            self._idle.clear()
            self._send()

    async def flushed(self) -> None:
        await self._idle.wait()

    def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            piece, descriptor = self._queue[0]
            try:
                socket.send_fds(self._channel, [piece], [descriptor] if descriptor >= 0 else [])
            except BlockingIOError:
                loop.add_writer(self._channel, self._send)
                return
            except OSError:  # nobody is there to take it, so this process ends, too
                self._queue.clear()
                break
            self._queue.popleft()
            if descriptor >= 0:
                os.close(descriptor)
        with contextlib.suppress(OSError, ValueError):
            loop.remove_writer(self._channel)
        self._idle.set()


class Receiver:
    """The end that takes them: `taken(connection, received)` for each."""

    def __init__(
        self, channel: socket.socket, taken: Callable[[socket.socket, bytes], None]
    ) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._taken = taken
        self._pieces: list[bytes] = []
        asyncio.get_running_loop().add_reader(channel, self._receive)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._channel)
        self._channel.close()

    def drain(self) -> None:
        """Take what a process that has ended gave away before."""
        while self._receive():
            pass

    def _receive(self) -> bool:
        try:
            piece, descriptors, _, _ = socket.recv_fds(
                self._channel, PIECE_BYTES + 1, 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError:
            piece, descriptors = b"", []
        if not piece:
            with contextlib.suppress(OSError, ValueError):
                asyncio.get_running_loop().remove_reader(self._channel)
            return False
        self._pieces.append(piece[1:])
        if piece[:1] == LAST:
            received, self._pieces = b"".join(self._pieces), []
            for descriptor in descriptors:
                self._taken(socket.socket(fileno=descriptor), received)
        return True
