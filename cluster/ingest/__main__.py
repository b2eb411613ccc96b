"""One ingest process; a node starts it, with the two descriptors that it is reached by.

Ends with the node, whatever the node ends by: its line breaks then. Signals are the node's to
handle, for a terminal or a service manager sends them to all processes alike.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys

from cluster.api.lane import Lane, Lanes
from cluster.api.plain import BACKLOG
from cluster.ingest.counter import Counter
from cluster.ingest.handover import Sender
from cluster.ingest.messages import (
    Accepted,
    Begin,
    Clock,
    Declined,
    Listening,
    Message,
    Stop,
    Unknown,
    Wire,
    settings_from_dict,
)
from cluster.settings import parse_address

GC_THRESHOLDS = (50_000, 20, 50)  # as the node's
UNSENT_PAUSE_S = 0.005

log = logging.getLogger("quorate.ingest")


class Ingest:
    """The process: its line to the node, its port, its lanes."""

    def __init__(self, channel: socket.socket) -> None:
        self._wire = Wire(self._heard, self._lost)
        self._sender = Sender(channel)
        self._lanes = Lanes()
        self._counter: Counter | None = None
        self._listener: asyncio.Server | None = None
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, line: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self._wire, sock=line)
        await self._ended.wait()

    # -- what the node says ----------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        if isinstance(message, Begin):
            self._start(self._listen(message))
        elif isinstance(message, Stop):
            self._start(self._stop())
        elif self._counter is None:
            pass
        elif isinstance(message, Clock):
            self._counter.ahead_ms = message.ahead_ms
        elif isinstance(message, Accepted | Declined | Unknown):
            self._counter.answered(message)

    def _start(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lost(self) -> None:
        """The node is gone: nobody could say what becomes of anything."""
        self._ended.set()

    async def _listen(self, begin: Begin) -> None:
        settings = settings_from_dict(begin.settings)
        counter = self._counter = Counter(settings, self._wire.send, self._give)
        host, port = parse_address(settings.http, "http")
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                lambda: Lane(counter, self._lanes),
                host,
                port,
                reuse_address=True,
                reuse_port=True,
                backlog=BACKLOG,
            )
        except OSError as error:
            self._wire.send(Listening(f"cannot listen on http {settings.http}: {error.strerror}"))
            return
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self._wire.send(Listening())

    async def _stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._lanes.close()
        while self._lanes or (self._counter is not None and not self._counter.is_idle):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # once in its life, and no single event tells it
        await self._sender.flushed()
        self._ended.set()

    # -- what is not for here --------------------------------------------------------------------

    def _give(self, transport: asyncio.Transport, received: bytes) -> None:
        transport.pause_reading()
        if transport.is_closing():
            return
        if transport.get_write_buffer_size():
            loop = asyncio.get_running_loop()
            loop.call_later(UNSENT_PAUSE_S, self._give, transport, received)
            return
        self._sender.give(os.dup(transport.get_extra_info("socket").fileno()), received)
        transport.abort()  # only this process's descriptor


def main() -> None:
    line, channel = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")

    async def run() -> None:
        await Ingest(channel).run(line)

    try:
        import uvloop
    except ImportError:
        asyncio.run(run())
    else:
        uvloop.run(run())


if __name__ == "__main__":
    main()
