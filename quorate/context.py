"""What a running job may know and say: its identity, its fence, progress, log and cancellation.

A Context never talks to the network; it hands everything to its port (the worker), so the same
class serves real runs, plain calls and tests.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Protocol

PROGRESS_CHARS_MAX = 1000
LOG_BYTES_MAX = 16 * 1024  # per attempt: the durable log keeps the end, where the failure is


class Port(Protocol):
    """What a Context needs from whoever runs the job."""

    worker_id: str
    shutdown_requested: bool

    def report_progress(
        self, context: Context, fraction: float | None, message: str | None
    ) -> None: ...

    def report_log(self, context: Context, text: str) -> None: ...


class _NoPort:
    """The port of a context outside any worker (a plain call): listens to nothing."""

    worker_id = ""
    shutdown_requested = False

    def report_progress(
        self, context: Context, fraction: float | None, message: str | None
    ) -> None:
        return

    def report_log(self, context: Context, text: str) -> None:
        return


class BoundedLog:
    """Lines of one attempt, oldest dropped first; safe to write from any thread."""

    __slots__ = ("_bytes", "_dropped", "_lines", "_lock")

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._bytes = 0
        self._dropped = False
        self._lock = threading.Lock()

    def append(self, text: str) -> None:
        """Adds text as it is, keeping at most LOG_BYTES_MAX characters in all."""
        text = text[-LOG_BYTES_MAX:]
        with self._lock:
            self._lines.append(text)
            self._bytes += len(text) + 1
            while self._bytes > LOG_BYTES_MAX and len(self._lines) > 1:
                self._bytes -= len(self._lines.popleft()) + 1
                self._dropped = True

    def text(self) -> str:
        """Everything kept, with a first line that says so if something was dropped."""
        with self._lock:
            lines = list(self._lines)
        if self._dropped:
            lines.insert(0, "[earlier lines dropped]")
        return "\n".join(lines)


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """A standard logger whose records also land in the job's own log."""

    def __init__(self, context: Context) -> None:
        super().__init__(logging.getLogger(f"quorate.task.{context.name}"), {})
        self._context = context

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Adds the fence to every record as `job_id` and `attempt`."""
        extra = {"job_id": self._context.job_id, "attempt": self._context.attempt}
        kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Logs at `level`; the job's log gets the line whatever the logger's level is."""
        try:
            text = str(msg) % args if args else str(msg)
        except (TypeError, ValueError):
            text = f"{msg} {args}"
        self._context.log(f"{logging.getLevelName(level)} {text}")
        if self.isEnabledFor(level):
            text_msg, kwargs_ = self.process(msg, kwargs)
            self.logger.log(level, text_msg, *args, **kwargs_)


class Context:
    """One attempt of one job, as its task sees it."""

    __slots__ = (
        "_cancelled",
        "_log",
        "_logger",
        "_port",
        "_waiters",
        "attempt",
        "failures",
        "job_number",
        "max_retries",
        "name",
        "queue",
        "stop_at",
    )

    def __init__(
        self,
        job_number: int,
        attempt: int,
        name: str,
        *,
        queue: str = "default",
        failures: int = 0,
        max_retries: int = 0,
        stop_at: float = 0.0,
        port: Port | None = None,
    ) -> None:
        self.job_number = job_number
        self.attempt = attempt
        self.name = name
        self.queue = queue
        self.failures = failures
        self.max_retries = max_retries
        self.stop_at = stop_at  # on the monotonic clock; 0 = none
        self._port: Port = port or _NoPort()
        self._cancelled = False
        self._waiters: list[asyncio.Future[None]] | None = None
        self._log: BoundedLog | None = None
        self._logger: JobLogger | None = None

    @property
    def job_id(self) -> str:
        """The id under which every other part of the system knows this job."""
        return str(self.job_number)

    @property
    def fence(self) -> tuple[str, int]:
        """(job_id, attempt): pass it to outside systems so that they can refuse older attempts."""
        return self.job_id, self.attempt

    @property
    def worker_id(self) -> str:
        """The worker that runs this attempt; empty outside a worker."""
        return self._port.worker_id

    @property
    def deadline(self) -> datetime | None:
        """When this attempt will be stopped, or None."""
        if not self.stop_at:
            return None
        return datetime.fromtimestamp(time.time() + self.stop_at - time.monotonic(), UTC)

    @property
    def cancelled(self) -> bool:
        """True once the job has to stop: cancelled, out of time, or handed back."""
        return self._cancelled

    @property
    def shutdown_requested(self) -> bool:
        """True once the worker wants to stop; a long job may save its work and return."""
        return self._port.shutdown_requested

    @property
    def logger(self) -> JobLogger:
        """A `logging` adapter that also writes to the job's log."""
        if self._logger is None:
            self._logger = JobLogger(self)
        return self._logger

    async def wait_cancelled(self) -> None:
        """Returns once `cancelled` is True. Call it on the worker's event loop only."""
        if self._cancelled:
            return
        waiter = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        await waiter

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        """Reports how far the job is (0..1) and what it is doing; cheap, the latest one wins."""
        if fraction is not None:
            fraction = min(1.0, max(0.0, float(fraction)))
        if message is not None:
            message = message[:PROGRESS_CHARS_MAX]
        self._port.report_progress(self, fraction, message)

    def log(self, *parts: object) -> None:
        """Adds a line to the job's log; the last 16 KiB of an attempt are kept."""
        text = " ".join(str(part) for part in parts)
        self.keep_log(text)
        self._port.report_log(self, text)

    def keep_log(self, text: str) -> None:
        """Adds to the durable log only, without a live line."""
        if self._log is None:
            self._log = BoundedLog()
        self._log.append(text)

    def log_text(self) -> str | None:
        """The kept log of this attempt, None when nothing was written."""
        return None if self._log is None else self._log.text()

    def request_stop(self) -> bool:
        """Raises the flag and wakes `wait_cancelled`; True if someone was waiting there.

        For the worker; on its event loop only."""
        self._cancelled = True
        waiting = [waiter for waiter in self._waiters or () if not waiter.done()]
        for waiter in waiting:
            waiter.set_result(None)
        self._waiters = None
        return bool(waiting)


GetContext = Callable[[], Context]  # makes the Context when it is asked for the first time

CURRENT: ContextVar[GetContext] = ContextVar("quorate_current")


def current() -> Context:
    """The Context of the job that runs here, however deep. LookupError outside of a job."""
    try:
        get_context = CURRENT.get()
    except LookupError:
        raise LookupError("no job is running here") from None
    return get_context()
