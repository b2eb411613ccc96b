"""A worker: slots that run jobs, and a link to the cluster that feeds them.

Owns the order of leaving: take no more, let jobs finish within the grace, hand back the rest, say
goodbye. Everything else is in the runner, the outbox and the link.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from ..client import Client
from ..durations import Duration, to_seconds
from ..errors import QuorateError
from ..executors import Tools, executors_for
from ..executors.command import kill_groups
from ..transport import node_list
from .link import Desk, Identity, Link
from .outbox import Outbox
from .poll import PollLink
from .runner import Runner
from .stream import StreamLink

if TYPE_CHECKING:
    from ..app import Scheduler

logger = logging.getLogger("quorate.worker")

DEFAULT_SLOTS = 16
DEFAULT_GRACE_SECONDS = 30.0
HAND_BACK_SECONDS = 4.0  # a command may take 2 s from SIGTERM to SIGKILL
DELIVER_SECONDS = 5.0  # for the last results, at the end of the grace

LINKS: dict[str, Callable[[Desk], Link]] = {"stream": StreamLink, "poll": PollLink}


class WorkerAborted(QuorateError):
    """A second signal (or `abort`) ended the worker without leaving properly."""

    code = "worker_aborted"


class Worker:
    """Runs the jobs of an application (or only the built-in tasks, without one).

    Await `run`, or use it as an async context manager beside other work in the same loop.

    `grace`: how long running jobs may go on after `stop` or the first SIGTERM/SIGINT.
    `queues`: default "default" and every queue that a task of the application names.
    """

    def __init__(
        self,
        app: Scheduler | None = None,
        *,
        nodes: str | Sequence[str] | None = None,
        slots: int = DEFAULT_SLOTS,
        queues: Sequence[str] | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        protocol: Literal["stream", "poll"] = "stream",
        grace: Duration = DEFAULT_GRACE_SECONDS,
    ) -> None:
        if slots < 1:
            raise ValueError("a worker needs at least one slot")
        if protocol not in LINKS:
            raise ValueError(f"unknown protocol {protocol!r}: {' or '.join(LINKS)}")
        self.app = app
        self.nodes = node_list(app.nodes if nodes is None and app is not None else nodes)
        self.slots = slots
        self.queues = list(queues) if queues else _queues_of(app)
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.labels = dict(labels or {})
        self.protocol = protocol
        self.grace_seconds = to_seconds(grace)
        self.registered = asyncio.Event()
        self._stop = asyncio.Event()
        self._abort = asyncio.Event()
        self._drained = False
        self._runner: Runner | None = None
        self._desk: Desk | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def worker_id(self) -> str | None:
        """The id given by the cluster, once registered."""
        return self._desk.identity.worker_id if self._desk is not None else None

    @property
    def running(self) -> int:
        """How many jobs run right now."""
        return len(self._runner.running) if self._runner is not None else 0

    @property
    def finished_count(self) -> int:
        """How many attempts have ended here, whatever their end."""
        return self._runner.finished_count if self._runner is not None else 0

    def stop(self) -> None:
        """Starts leaving; `run` returns when it is done. Idempotent."""
        self._stop.set()

    def abort(self) -> None:
        """Ends at once: running commands are killed, nothing is handed back."""
        self._abort.set()

    async def run(self, *, handle_signals: bool = False) -> None:
        """Works until `stop`, a signal, or a drain by the cluster.

        Raises WorkerRefused when the cluster does not want this worker, WorkerAborted after
        `abort`, and QuorateError when results could not be delivered before leaving.
        """
        tools = Tools(self.slots)
        tasks = self.app.tasks.values() if self.app is not None else ()
        executors = executors_for(tasks, tools)
        outbox = Outbox()
        runner = self._runner = Runner(executors, outbox, self.slots)
        identity = Identity(self.name, self.slots, self.queues, sorted(executors), self.labels)
        self._desk = Desk(self.nodes, identity, runner, outbox, self._on_drain, self.registered.set)
        link = LINKS[self.protocol](self._desk)
        undo_signals = self._listen_signals() if handle_signals else _nothing
        loop = asyncio.get_running_loop()
        link_task = loop.create_task(link.run())
        schedules_task = loop.create_task(self._sync_schedules())
        leave_task = loop.create_task(self._leave_when_told(link, runner, outbox))
        abort_task = loop.create_task(self._abort.wait())
        parts: list[asyncio.Task[Any]] = [link_task, schedules_task, leave_task, abort_task]
        try:
            waited = {link_task, leave_task, abort_task}
            done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if abort_task in done:
                raise WorkerAborted("aborted; what ran here was not handed back")
            if link_task in done and not self._stop.is_set():
                link_task.result()
            await leave_task
        finally:
            kill_groups(tools.process_groups)
            for part in parts:
                part.cancel()
            parts += runner.abort()
            await asyncio.wait(parts, timeout=1.0)
            await tools.close()
            undo_signals()

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self.stop()
        await self._task

    async def _sync_schedules(self) -> None:
        if self.app is None or not self.app.schedules:
            return
        try:
            async with Client(self.nodes) as client:  # the app may know another cluster
                await self.app.sync_schedules(client)
        except QuorateError as error:
            logger.error("the declared schedules could not be stored: %s", error)

    def _on_drain(self) -> None:
        """The cluster asked: all the time that jobs need, then leave."""
        self._drained = True
        self._stop.set()

    async def _leave_when_told(self, link: Link, runner: Runner, outbox: Outbox) -> None:
        await self._stop.wait()
        runner.stop_accepting()
        link.stop_taking()
        logger.info("leaving: %d jobs run", len(runner.running))
        # A drain has no hurry of its own; only a stop or a signal sets the clock.
        grace_seconds = None if self._drained else self.grace_seconds
        if not await _within(runner.wait_idle(), grace_seconds):
            logger.info("handing back %d jobs", len(runner.running))
            runner.release_all()
            await _within(runner.wait_idle(), HAND_BACK_SECONDS)
        delivered = await _within(outbox.wait_empty(), DELIVER_SECONDS)
        await link.leave()
        if not delivered:
            raise QuorateError(f"{len(outbox.held)} results could not be delivered before leaving")

    def _listen_signals(self) -> Callable[[], None]:
        """First SIGTERM/SIGINT: stop; second: abort. Returns the undoing."""
        loop = asyncio.get_running_loop()
        seen = 0

        def on_signal() -> None:
            nonlocal seen
            seen += 1
            if seen == 1:
                self.stop()
            else:
                self.abort()

        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, on_signal)

        def undo() -> None:
            for number in numbers:
                loop.remove_signal_handler(number)

        return undo


def _nothing() -> None:
    return


async def _within(work: Any, seconds: float | None) -> bool:
    """True if `work` ended in time."""
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        return False
    return True


def _queues_of(app: Scheduler | None) -> list[str]:
    tasks = app.tasks.values() if app is not None else ()
    named = {str(task.options["queue"]) for task in tasks if "queue" in task.options}
    return sorted(named | {"default"})


__all__ = ["Worker", "WorkerAborted"]
