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
PULSE_MOMENTS = 16  # in a third of the TTL: what is sent then to some is sent at once
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
        self._sending_s = 0.0  # since when a frame is being sent, 0 if none is
        self._is_quiet = True  # nothing was put since the last pulse
        self._timer: asyncio.TimerHandle | None = None

    def put(self, frame: bytes) -> None:
        """Send after what is queued."""
        if self.closing:
            return
        if len(self._queue) >= FRAMES_MAX or self._bytes + len(frame) > BYTES_MAX:
            self._cut_off()
            return
        self._queue.append(frame)
        self._bytes += len(frame)
        self._is_quiet = False
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
        self._timer = self._loop.call_at(self._next_pulse_s(), self._pulse)
        try:
            while not self.closing:
                await self._wake.wait()
                await self._send()
            await self._send()
        except ConnectionError:
            pass
        finally:
            self.closing = True
            self._timer.cancel()
            await self._close_socket()

    def _pulse(self) -> None:
        """Thrice per TTL, for all that takes time: a timer around every frame would cost more than
        the frame."""
        now_s = self._loop.time()
        if self._sending_s and now_s - self._sending_s > self._ttl_s:
            self._cut_off()
            self._abort()  # or the frame would be waited for
        elif self._is_quiet and now_s - self._heard_s > self._ttl_s:
            self.close(None)
        elif not self.closing:
            if self._is_quiet:
                self.put(frames.HEARTBEAT)
            self._is_quiet = True
        self._timer = self._loop.call_at(self._next_pulse_s(), self._pulse)

    def _next_pulse_s(self) -> float:
        """A third of the TTL ahead or a little less, when others have theirs, too: a thousand
        workers shall not wake the node up a thousand times."""
        third_s = self._ttl_s / 3
        slot_s = third_s / PULSE_MOMENTS
        return (self._loop.time() + third_s) // slot_s * slot_s

    async def _send(self) -> None:
        self._wake.clear()
        queue = self._queue
        while queue:
            frame = queue.popleft()
            self._bytes = max(self._bytes - len(frame), 0)
            self._sending_s = self._loop.time()
            await self._socket.send_bytes(frame)
            self._sending_s = 0.0

    async def _close_socket(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._socket.close()
        except TimeoutError:
            self._abort()  # the peer does not even answer the close
