"""Test kit: run a task as a worker would, without a cluster, or with a real node in this process.

The only module that may import the server, and only when `local_node` is called.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from . import payloads
from .context import CURRENT, Context
from .executors import KINDS, Tools
from .tasks import Task

R = TypeVar("R")


class _RecordingPort:
    """Keeps what a job says instead of sending it."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self.shutdown_requested = False
        self.progress: list[tuple[float | None, str | None]] = []
        self.lines: list[str] = []

    def report_progress(
        self, context: Context, fraction: float | None, message: str | None
    ) -> None:
        self.progress.append((fraction, message))

    def report_log(self, context: Context, text: str) -> None:
        self.lines.append(text)


class ContextStub(Context):
    """A Context whose reports can be read: `reports` and `lines`."""

    __slots__ = ("_recorder",)

    def __init__(
        self,
        job_id: str = "1",
        *,
        attempt: int = 1,
        name: str = "test",
        queue: str = "default",
        failures: int = 0,
        max_retries: int = 3,
        worker_id: str = "w0",
    ) -> None:
        self._recorder = _RecordingPort(worker_id)
        super().__init__(
            int(job_id),
            attempt,
            name,
            queue=queue,
            failures=failures,
            max_retries=max_retries,
            port=self._recorder,
        )

    @property
    def reports(self) -> list[tuple[float | None, str | None]]:
        """Every progress report, oldest first."""
        return self._recorder.progress

    @property
    def lines(self) -> list[str]:
        """Every log line, oldest first."""
        return self._recorder.lines

    def cancel(self) -> None:
        """What the job sees when it is cancelled."""
        self.request_stop()

    def request_shutdown(self) -> None:
        """What the job sees when its worker wants to stop."""
        self._recorder.shutdown_requested = True


async def run_task(task: Task[R], payload: Any = None, context: Context | None = None) -> R:
    """Runs a task as a worker does: through JSON both ways, with its context, in a thread if it
    is a plain function. Raises what the task raises, PayloadInvalid for a payload that does not
    fit."""
    tools = Tools(1)
    executor = KINDS[task.kind](task, tools)
    raw = b"" if payload is None else payloads.encode(payload)
    stub = context or ContextStub(name=task.name)
    token = CURRENT.set(lambda: stub)
    try:
        value = await executor.start(raw, CURRENT.get())
    finally:
        CURRENT.reset(token)
        await tools.close()
    read = payloads.decoder_for(task.signature().returns, f"the result of {task.name}")
    result: R = read(payloads.encode(value))
    return result


def free_port() -> int:
    """A port of the loopback interface that is free right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def local_node(data: Path | None = None, **settings: Any) -> AsyncIterator[str]:
    """A real single node in this event loop; gives its URL.

    `data` is kept when given, else a temporary folder is used. `settings` are those of
    `cluster.Settings`. Not forced to disk by default: a test does not pull the plug.
    """
    from cluster import Node, Settings

    with tempfile.TemporaryDirectory(prefix="quorate-test-") as folder:
        http = f"127.0.0.1:{free_port()}"
        raft = f"127.0.0.1:{free_port()}"
        values = {"http": http, "listen": raft, "data": data or Path(folder), "fsync": False}
        async with Node(Settings(**{**values, **settings})) as node:
            async with asyncio.timeout(30):
                await node.ready()
            yield f"http://{node.settings.http}"
