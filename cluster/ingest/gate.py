"""The node's side: starts the ingest processes, answers them, and takes over what they pass on.

One that dies is started again; what it had not answered its clients repeat, as after any broken
connection. The port stays reserved by the node meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from functools import partial
from pathlib import Path

from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded, Services
from cluster.api.door import Door
from cluster.api.lookup import find_job
from cluster.api.submission import ids_of, room_problem
from cluster.clock import SystemClock
from cluster.ingest.handover import Receiver
from cluster.ingest.messages import (
    Accepted,
    Begin,
    Clock,
    Declined,
    Listening,
    Message,
    Stop,
    Submitting,
    Unknown,
    Wire,
    settings_to_dict,
)
from cluster.machine import views
from cluster.machine.commands import JobGroup
from cluster.machine.results import Result, Submitted
from cluster.machine.views import JobView
from cluster.settings import parse_address

log = logging.getLogger("quorate.ingest")

RESTART_PAUSES_S = (0.1, 0.5, 1.0, 5.0)
LASTING_S = 30.0  # who lived that long is restarted without a pause
CLOCK_EVERY_S = 1.0
ROOT = Path(__file__).resolve().parents[2]


class IngestError(Exception):
    """The processes cannot be started; one line."""


class Gate:
    """All ingest processes of a node."""

    def __init__(self, services: Services, door: Door, count: int) -> None:
        self._services = services
        self._door = door
        self._processes = [_Process(self, number) for number in range(1, count + 1)]
        self._reserved: socket.socket | None = None
        self._system = SystemClock()
        self._clock_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.restarts_total = 0
        self.submissions_total = 0
        self.handovers_total = 0

    async def start(self) -> None:
        """Raises IngestError."""
        if not hasattr(socket, "SOCK_SEQPACKET") or not hasattr(socket, "SO_REUSEPORT"):
            raise IngestError("ingest needs Linux: leave the setting out")
        self._reserved = _reserve(self._services.settings.http)
        await asyncio.gather(*(process.start() for process in self._processes))
        self._tell_clock()

    async def stop(self, timeout_s: float) -> None:
        await asyncio.gather(*(process.stop(timeout_s) for process in self._processes))
        if self._clock_timer is not None:
            self._clock_timer.cancel()
        if self._reserved is not None:
            self._reserved.close()

    def gauges(self) -> dict[str, float]:
        return {
            "ingest_processes": sum(process.is_listening for process in self._processes),
            "ingest_restarts": self.restarts_total,
            "ingest_submissions": self.submissions_total,
            "ingest_handovers": self.handovers_total,
        }

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process.pid]

    def _tell_clock(self) -> None:
        ahead_ms = self._services.clock.now_ms() - self._system.now_ms()
        for process in self._processes:
            process.send(Clock(ahead_ms))
        loop = asyncio.get_running_loop()
        self._clock_timer = loop.call_later(CLOCK_EVERY_S, self._tell_clock)

    def adopt(self, connection: socket.socket, received: bytes) -> None:
        self.handovers_total += 1
        self._start(self._adopt(connection, received))

    async def _adopt(self, connection: socket.socket, received: bytes) -> None:
        try:
            await self._door.adopt(connection, received)
        except OSError:
            connection.close()

    # -- submissions -----------------------------------------------------------------------------

    def submit(self, wire: Wire, asked: Submitting) -> None:
        services = self._services
        self.submissions_total += 1
        try:
            if any(room_problem(services, *wanted) for wanted in _room(asked.command.groups)):
                raise Overloaded("a queue is full")
            future = services.submissions.submit_alone(asked.command)
        except (NotLeader, Overloaded):
            wire.send(Declined(asked.number))
            return
        future.add_done_callback(partial(self._done, wire, asked))

    def _done(self, wire: Wire, asked: Submitting, future: asyncio.Future[Result]) -> None:
        error = future.exception()
        if isinstance(error, OutcomeUnknown):
            self._lost(wire, asked)
        elif error is not None or not isinstance(future.result(), Submitted):
            wire.send(Declined(asked.number))
        else:
            result = future.result()
            assert isinstance(result, Submitted)
            ids = ids_of(result) if asked.is_lone else []
            shown = [views.job(self._services.raft.state, job_id) for job_id in ids]
            if None in shown:
                self._start(self._accepted_late(wire, asked, result))
            else:
                self._accepted(wire, asked, result, [view for view in shown if view])

    async def _accepted_late(self, wire: Wire, asked: Submitting, result: Submitted) -> None:
        """One has ended already, so the history is asked."""
        try:
            shown = [await find_job(self._services, job_id) for job_id in ids_of(result)]
        except Exception:  # whatever it is, the submission is booked and its client waits
            log.exception("what was submitted through an ingest process cannot be shown")
            self._lost(wire, asked)
        else:
            self._accepted(wire, asked, result, shown)

    def _accepted(
        self, wire: Wire, asked: Submitting, result: Submitted, shown: list[JobView]
    ) -> None:
        for view in shown:
            view.payload = b""  # the process has it
        raft = self._services.raft
        wire.send(Accepted(asked.number, result, raft.applied_index, raft.leader_http, shown))

    def _lost(self, wire: Wire, asked: Submitting) -> None:
        raft = self._services.raft
        wire.send(Unknown(asked.number, raft.applied_index, raft.leader_http))

    def _start(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def begin(self) -> Begin:
        return Begin(settings_to_dict(self._services.settings))


class _Process:
    """One of them, over all its lives."""

    def __init__(self, gate: Gate, number: int) -> None:
        self._gate = gate
        self._number = number
        self._process: asyncio.subprocess.Process | None = None
        self._wire: Wire | None = None
        self._listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False
        self.is_listening = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def send(self, message: Message) -> None:
        if self._wire is not None:
            self._wire.send(message)

    async def start(self) -> None:
        """Raises IngestError when the port cannot be opened; deaths are seen to."""
        self._keeper = asyncio.create_task(self._keep(await self._spawn()))
        problem = await self._listening
        if problem:
            raise IngestError(problem)

    async def stop(self, timeout_s: float) -> None:
        """It answers what is under way; what takes too long is cut off."""
        self._stopping = True
        self.send(Stop())
        if self._keeper is None:
            return
        done, _ = await asyncio.wait([self._keeper], timeout=timeout_s)
        if not done:
            if self._process is not None and self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            else:
                self._keeper.cancel()  # between two lives
            await asyncio.wait([self._keeper])

    async def _keep(self, receiver: Receiver) -> None:
        loop, deaths = asyncio.get_running_loop(), 0
        while True:
            began_s = loop.time()
            assert self._process is not None
            code = await self._process.wait()
            self.is_listening = False
            receiver.drain()
            receiver.close()
            if self._wire is not None:
                self._wire.close()
            if self._stopping:
                return
            deaths = 0 if loop.time() - began_s > LASTING_S else deaths + 1
            self._gate.restarts_total += 1
            log.error("ingest process %d ended with %s; it is started again", self._number, code)
            await asyncio.sleep(RESTART_PAUSES_S[min(deaths, len(RESTART_PAUSES_S)) - 1])
            if self._stopping:
                return
            receiver = await self._spawn()

    async def _spawn(self) -> Receiver:
        loop = asyncio.get_running_loop()
        line, their_line = socket.socketpair()
        channel, their_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with their_line, their_channel:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cluster.ingest",
                str(their_line.fileno()), str(their_channel.fileno()),
                pass_fds=(their_line.fileno(), their_channel.fileno()),
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        # One wire for each life: answers to a dead process must not reach the next.
        wire = self._wire = Wire(self._heard, lambda: None)
        line.setblocking(False)
        await loop.create_unix_connection(lambda: wire, sock=line)
        wire.send(self._gate.begin())
        return Receiver(channel, self._gate.adopt)

    def _heard(self, message: Message) -> None:
        if isinstance(message, Submitting):
            assert self._wire is not None
            self._gate.submit(self._wire, message)
        elif isinstance(message, Listening):
            self.is_listening = not message.problem
            if message.problem:
                log.error("ingest process %d: %s", self._number, message.problem)
            if not self._listening.done():
                self._listening.set_result(message.problem)


def _room(groups: list[JobGroup]) -> list[tuple[str, int]]:
    """For how many jobs each queue must have room."""
    wanted: dict[str, int] = {}
    for group in groups:
        queue = group.spec.queue
        wanted[queue] = wanted.get(queue, 0) + len(group.payloads)
    return list(wanted.items())


def _reserve(address: str) -> socket.socket:
    """The port, held without listening, so that it is the node's while a process is started again.
    Raises IngestError."""
    host, port = parse_address(address, "http")
    family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    reserved = socket.socket(family, kind)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(where)
    except OSError as error:
        reserved.close()
        raise IngestError(f"cannot listen on http {address}: {error.strerror}") from error
    return reserved
