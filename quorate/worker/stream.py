"""The WebSocket link: jobs are pushed against credits, results go back in batched frames.

Finds the leader by itself and follows it. Owns no job: what runs goes on while the link is down.
"""

from __future__ import annotations

import asyncio
import logging
import random

import aiohttp
import msgspec

from ..errors import WorkerRefused
from . import frames
from .finder import CONNECT_SECONDS, LeaderFinder
from .link import Desk, LinkLost

logger = logging.getLogger("quorate.worker")

REGISTER_SECONDS = 5.0
BACKOFF_FIRST_SECONDS = 0.05
BACKOFF_MAX_SECONDS = 2.0
LEAVE_SECONDS = 3.0
DOUBT_SECONDS = 0.5
FRAME_BYTES_MAX = 64 * 1024 * 1024
TRANSIENT_ERRORS = frozenset({"try_again", "not_leader", "no_quorum", "overloaded", "draining"})


class StreamLink:
    """One worker's stream to whichever node leads."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._finder = LeaderFinder(desk.nodes)
        self._session: aiohttp.ClientSession | None = None
        self._ttl_seconds = 10.0
        self._received_at = 0.0
        self._sent_at = 0.0
        self._heartbeat_due = False
        self._draining = False
        self._drain_told = False
        self._leaving = False
        self._left = asyncio.Event()
        self._registered = False
        self._trouble = ""
        self._closing: set[asyncio.Task[bool]] = set()

    # -- lifetime ------------------------------------------------------------------------------

    async def run(self) -> None:
        """See Link."""
        tries = 0
        async with aiohttp.ClientSession() as self._session:
            self._finder.session = self._session
            while not self._left.is_set():
                self._registered = False
                try:
                    await self._serve(await self._finder.leader())
                except (LinkLost, aiohttp.ClientError, TimeoutError, OSError) as error:
                    if self._leaving:
                        break
                    self._report(str(error) or type(error).__name__)
                tries = 0 if self._registered else tries + 1
                pause = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(tries, 8))
                await asyncio.sleep(random.uniform(pause / 4, pause))
            await asyncio.gather(*self._closing, return_exceptions=True)
        self._left.set()

    def _report(self, trouble: str) -> None:
        """Each trouble once, however often it is met while a cluster is away."""
        level = logging.DEBUG if trouble == self._trouble else logging.INFO
        self._trouble = trouble
        logger.log(level, "no stream: %s", trouble)

    def stop_taking(self) -> None:
        """See Link."""
        self._draining = True
        self._desk.outbox.wake.set()

    async def leave(self) -> None:
        """See Link."""
        self._leaving = True
        self._desk.outbox.wake.set()
        try:
            await asyncio.wait_for(self._left.wait(), LEAVE_SECONDS)
        except TimeoutError:
            logger.warning("left without a goodbye: no node answered")

    # -- one connection ------------------------------------------------------------------------

    async def _serve(self, url: str) -> None:
        assert self._session is not None
        try:
            # A paused or unreachable node must not hold us: another one leads by now.
            async with asyncio.timeout(CONNECT_SECONDS):
                socket = await self._session.ws_connect(
                    f"{url}/v1/workers/stream",
                    protocols=(frames.SUBPROTOCOL,),
                    max_msg_size=FRAME_BYTES_MAX,
                    timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                )
        except aiohttp.WSServerHandshakeError as error:
            self._learn(error)
            raise LinkLost(f"{url} does not lead ({error.status})") from error
        try:
            await self._register(socket, url)
            await self._converse(socket, url)
        finally:
            self._close(socket)

    def _close(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Without waiting: a node that says nothing does not say goodbye either."""
        closing = asyncio.get_running_loop().create_task(socket.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _learn(self, error: aiohttp.WSServerHandshakeError) -> None:
        """A node that does not lead may name the one that does."""
        leader = error.headers.get("X-Quorate-Leader", "") if error.headers else ""
        if leader.startswith("http"):
            self._finder.hint = leader.rstrip("/")

    async def _register(self, socket: aiohttp.ClientWebSocketResponse, url: str) -> None:
        desk, identity = self._desk, self._desk.identity
        held = list(desk.runner.running) + list(desk.outbox.held)
        hello = {
            "name": identity.name,
            "slots": identity.slots,
            "queues": identity.queues,
            "tasks": identity.tasks,
            "labels": identity.labels,
            "worker_id": identity.worker_id,
            "running": list(dict.fromkeys(held)),
            "speaks": [frames.COLUMNS],
        }
        await socket.send_bytes(frames.encode(("register", hello)))
        answer = await asyncio.wait_for(self._next(socket), REGISTER_SECONDS)
        if not isinstance(answer, frames.Registered):
            raise LinkLost(f"{url} did not answer the registration")
        identity.worker_id = desk.runner.worker_id = answer.worker_id
        self._ttl_seconds = max(0.3, answer.ttl_seconds)
        self._drain_told = False
        self._registered = True
        desk.runner.drop(answer.stale)
        desk.outbox.columns = frames.COLUMNS in answer.speaks
        desk.outbox.restart(answer.stale, desk.runner.free_slots)
        self._trouble = ""
        logger.info("worker %s serves %s", answer.worker_id, url)
        desk.on_registered()

    async def _converse(self, socket: aiohttp.ClientWebSocketResponse, url: str) -> None:
        loop = asyncio.get_running_loop()
        parts = [
            loop.create_task(self._read(socket)),
            loop.create_task(self._write(socket)),
            loop.create_task(self._watch()),
            loop.create_task(self._doubt(url)),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        for part in done:
            part.result()

    async def _next(self, socket: aiohttp.ClientWebSocketResponse) -> frames.Incoming | None:
        """The next frame; None for one of an unknown type. LinkLost when the node is gone."""
        message = await socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise LinkLost(f"the node closed the stream ({socket.close_code})")
        self._received_at = asyncio.get_running_loop().time()
        try:
            frame = frames.decode(message.data)
        except msgspec.MsgspecError as error:
            raise LinkLost(f"the node sent a frame that cannot be read: {error}") from error
        if isinstance(frame, frames.Error):
            self._refused(frame)
        if isinstance(frame, frames.Moved):
            self._finder.hint = frame.leader.rstrip("/") if frame.leader else None
            raise LinkLost("the node leads no longer")
        return frame

    def _refused(self, frame: frames.Error) -> None:
        """LinkLost if another try can help, WorkerRefused if not."""
        identity = self._desk.identity
        if self._registered or frame.code in TRANSIENT_ERRORS:
            raise LinkLost(f"{frame.code}: {frame.message}")
        if identity.worker_id is not None:  # known once, perhaps forgotten: start afresh
            identity.worker_id = None
            raise LinkLost(f"{frame.code}: {frame.message}")
        raise WorkerRefused(frame.message or frame.code, code=frame.code)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        runner, outbox = self._desk.runner, self._desk.outbox
        while True:
            frame = await self._next(socket)
            if isinstance(frame, frames.Like):
                runner.start_like(frame)
            elif isinstance(frame, frames.Jobs):
                runner.start(frame.jobs)
            elif isinstance(frame, frames.Ack):
                outbox.ack(frame.seq)
            elif isinstance(frame, frames.Cancel):
                runner.cancel(frame.keys)
            elif isinstance(frame, frames.Stop):
                runner.stop(frame.keys)
            elif isinstance(frame, frames.Drain):
                self._desk.on_drain()

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """One round per loop turn: while one is being sent, results gather for the next."""
        loop, outbox = asyncio.get_running_loop(), self._desk.outbox
        while True:
            await outbox.wake.wait()
            for frame in outbox.frames():
                await socket.send_bytes(frame)
            if self._draining and not self._drain_told:
                self._drain_told = True
                await socket.send_bytes(frames.encode(("drain",)))
            if self._heartbeat_due:
                self._heartbeat_due = False
                await socket.send_bytes(frames.encode(("heartbeat",)))
            self._sent_at = loop.time()
            if self._leaving:
                await socket.send_bytes(frames.encode(("bye",)))
                self._left.set()
                return

    async def _watch(self) -> None:
        """Speaks when nothing else did, and notices a node that says nothing any more."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._ttl_seconds / 4)
            if loop.time() - self._received_at > self._ttl_seconds:
                # A task may have blocked the loop; what arrived meanwhile must be read first.
                await asyncio.sleep(min(0.5, self._ttl_seconds / 10))
                if loop.time() - self._received_at > self._ttl_seconds:
                    raise LinkLost(f"the node was silent for {self._ttl_seconds:g} s")
            if loop.time() - self._sent_at >= self._ttl_seconds / 4:
                self._heartbeat_due = True
                self._desk.outbox.wake.set()

    async def _doubt(self, url: str) -> None:
        """Asks the others who leads when this node owes an answer and says nothing.

        A host that vanished closes no connection, and the TTL is long: jobs that the next leader
        has would wait for it. Nothing is done on a doubt alone."""
        loop, outbox = asyncio.get_running_loop(), self._desk.outbox
        pause_s, owed, heard_at = DOUBT_SECONDS, False, 0.0
        while True:
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            is_silent = owed and outbox.is_owed and heard_at == self._received_at
            owed, heard_at = outbox.is_owed, self._received_at
            # A node speaks every third of the TTL even when there is nothing to say.
            is_silent |= loop.time() - heard_at > self._ttl_seconds / 3 + DOUBT_SECONDS
            if not is_silent:
                pause_s = DOUBT_SECONDS
                continue
            if await self._finder.another_leads(url):
                raise LinkLost(f"{url} says nothing and another node leads")
            pause_s = min(pause_s * 1.5, self._ttl_seconds / 4)
