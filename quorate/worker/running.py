"""One attempt in its slot, and the Context that its task may ask for.

Most jobs never look at their Context, so it is made when somebody does.
"""

from __future__ import annotations

import asyncio
import threading

import msgspec

from ..context import Context, Port
from ..executors import Executor
from .frames import Key

_making = threading.Lock()  # a job's own thread may ask at the moment the worker stops it


class Kind(msgspec.Struct):
    """What jobs of one kind have in common."""

    name: str
    queue: str
    timeout_ms: int
    max_retries: int
    executor: Executor


class Running(msgspec.Struct, eq=False):
    """What the runner knows of an attempt. A Struct, because one is made per job."""

    key: Key
    kind: Kind
    payload: bytes
    failures: int
    stop_at: float  # on the loop's clock; 0 = never
    port: Port
    task: asyncio.Task[None] | None = None
    started: bool = False
    stop_reason: str | None = None
    stop_since: float = 0.0
    interrupted: bool = False
    settled: bool = False  # its result was given already, though it still takes the slot
    made: Context | None = None

    def context(self) -> Context:
        """The one Context of this attempt; from any thread."""
        if self.made is None:
            with _making:
                if self.made is None:
                    self.made = self._make()
        return self.made

    def _make(self) -> Context:
        (job_id, attempt), kind = self.key, self.kind
        return Context(
            job_id,
            attempt,
            kind.name,
            queue=kind.queue,
            failures=self.failures,
            max_retries=kind.max_retries,
            stop_at=self.stop_at,
            port=self.port,
        )

    def log_text(self) -> str | None:
        """The kept log of this attempt, None when nothing was written."""
        return None if self.made is None else self.made.log_text()
