"""What a node has to say to one worker: a bounded queue and the one task that sends from it.

Also keeps the line alive: a heartbeat when nothing else was sent, an end when nothing was heard.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiohttp import web

from cluster.api import frames

FRAMES_MAX = 10_000
BYTES_MAX = 64 << 20
CLOSE_SECONDS = 1.0  # for the peer to answer the close


class Outbox:
    """`put` never blocks. A worker that lets the queue run full is cut off: its link is dead, or
    as good as that."""

    def __init__(
        self, socket: web.WebSocketResponse, abort: Callable[[], None], ttl_s: float
    ) -> None:
        self.closing = False
        self._abort = abort
        self._socket = socket
        self._ttl_s = ttl_s
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()

    def put(self, frame: bytes) -> None:
        """Send after what is queued."""
        if self.closing:
            return
        if len(self._queue) >= FRAMES_MAX or self._bytes + len(frame) > BYTES_MAX:
            self._cut_off()
            return
        self._queue.append(frame)
        self._bytes += len(frame)
        self._wake.set()

    def put_first(self, frame: bytes) -> None:
        """Send before what is queued."""
        if not self.closing:
            self._queue.appendleft(frame)
            self._bytes += len(frame)
            self._wake.set()

    def heard(self) -> None:
        """The worker said something."""
        self._heard_s = self._loop.time()

    def close(self, last: bytes | None) -> None:
        """Send what is queued and `last`, then close the socket. Later calls do nothing."""
        if self.closing:
            return
        if last is not None:
            self._queue.append(last)
        self.closing = True
        self._wake.set()

    def _cut_off(self) -> None:
        self._queue.clear()
        self.close(None)

    async def run(self) -> None:
        """Sends until closed or the worker is gone, then closes the socket. A worker that takes
        nothing for a whole TTL is gone."""
        try:
            while not self.closing:
                await self._wait()
                await self._send()
            await self._send()
        except (ConnectionError, TimeoutError):
            pass
        finally:
            self.closing = True
            await self._close_socket()

    async def _wait(self) -> None:
        """Until there is something to send; after a third of the TTL that is a heartbeat."""
        try:
            async with asyncio.timeout(self._ttl_s / 3):
                await self._wake.wait()
        except TimeoutError:
            if self._loop.time() - self._heard_s > self._ttl_s:
                raise
            self._queue.append(frames.HEARTBEAT)

    async def _send(self) -> None:
        self._wake.clear()
        queue = self._queue
        while queue:
            frame = queue.popleft()
            self._bytes = max(self._bytes - len(frame), 0)
            async with asyncio.timeout(self._ttl_s):
                await self._socket.send_bytes(frame)

    async def _close_socket(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._socket.close()
        except TimeoutError:
            self._abort()  # the peer does not even answer the close
