"""The fast lane: a connection that does nothing but submit jobs, without a framework in between.

Most of what a lone `POST /v1/jobs` costs is HTTP machinery that it does not use. A lane reads plain
submissions by itself and answers them; with the first byte of anything else (another path, a
header that means something, a body that is refused, a node that does not lead) the connection is
handed over to the ordinary server, together with what has arrived, as if nothing had been there.
So there is one place that knows how requests are refused, and it is not this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from cluster.api.plain import HEAD_BYTES_MAX, HEAD_END, Head, plain_head

IDLE_S = 75.0  # as the ordinary server


class Counter(Protocol):
    """What stands behind a lane."""

    body_bytes_max: int  # larger ones are passed on at once

    def take(self, head: Head, body: bytes, answer: Callable[[bytes | None], None]) -> bool:
        """Begin to submit; False when this must be judged elsewhere. `answer` gets the whole answer
        later, or None when nothing was done and somebody else must do it."""

    def pass_on(self, transport: asyncio.Transport, received: bytes) -> None:
        """Give the connection to the ordinary server."""


class Lanes:
    """All connections of a listener that are in the lane. One that says nothing for IDLE_S to twice
    as long is closed: a client that vanished without a word would hold its file descriptor."""

    def __init__(self) -> None:
        self._lanes: set[Lane] = set()
        self._look: asyncio.TimerHandle | None = None  # none while nobody is here

    def __len__(self) -> int:
        return len(self._lanes)

    def add(self, lane: Lane) -> None:
        self._lanes.add(lane)
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(IDLE_S, self._look_round)

    def discard(self, lane: Lane) -> None:
        self._lanes.discard(lane)

    def close(self) -> None:
        """No lane takes a further request."""
        for lane in list(self._lanes):
            lane.close()

    def _look_round(self) -> None:
        self._look = None
        for lane in list(self._lanes):
            lane.close_if_idle()
        if self._lanes:
            self._look = asyncio.get_running_loop().call_later(IDLE_S, self._look_round)


class Lane(asyncio.Protocol):
    """One connection, until it is handed over."""

    def __init__(self, counter: Counter, lanes: Lanes) -> None:
        self._counter = counter
        self._lanes = lanes
        self._transport: asyncio.Transport | None = None
        self._received = b""  # of what is not answered yet, the request under way included
        self._length = 0  # of the request under way, 0 if there is none
        self._is_choked = False
        self._is_closing = False
        self._was_heard = True  # since somebody looked last

    # -- asyncio ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by descent
        self._lanes.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lanes.discard(self)

    def data_received(self, data: bytes) -> None:
        self._was_heard = True
        self._received = self._received + data if self._received else data
        if not self._length and not self._is_choked:
            self._next()
        elif len(self._received) > self._counter.body_bytes_max and self._transport is not None:
            self._transport.pause_reading()  # more requests than answers

    def pause_writing(self) -> None:
        self._is_choked = True

    def resume_writing(self) -> None:
        self._is_choked = False
        if self._received and not self._length:
            self._next()

    # -- requests --------------------------------------------------------------------------------

    def _next(self) -> None:
        """Begin with the request at the head of what has arrived, or wait for the rest of it."""
        received = self._received
        end = received.find(HEAD_END, 0, HEAD_BYTES_MAX)
        head = plain_head(received[:end]) if end > 0 else None
        if head is None or head.length > self._counter.body_bytes_max:
            self._hand_over()
            return
        start = end + len(HEAD_END)
        stop = start + head.length
        if len(received) < stop:
            return
        self._length = stop
        if not self._counter.take(head, received[start:stop], self._answer):
            self._length = 0
            self._hand_over()

    def _answer(self, answer: bytes | None) -> None:
        length, self._length = self._length, 0
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if answer is None:
            self._hand_over()
            return
        self._received = self._received[length:]
        transport.write(answer)
        if self._is_closing:
            transport.close()
        elif self._received:
            transport.resume_reading()
            if not self._is_choked:
                self._next()

    def _hand_over(self) -> None:
        transport, received = self._transport, self._received
        assert transport is not None
        self._transport, self._received = None, b""
        self._lanes.discard(self)
        transport.resume_reading()
        self._counter.pass_on(transport, received)

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no further request; one under way is still answered."""
        self._is_closing = True
        if not self._length and self._transport is not None:
            self._transport.close()

    def close_if_idle(self) -> None:
        """Half a request that was left lying counts as idle, one under way does not."""
        if not self._was_heard and not self._length and self._transport is not None:
            self._transport.close()
        self._was_heard = False
