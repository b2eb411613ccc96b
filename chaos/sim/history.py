"""A node's history without SQLite: durable a little later than it is told, and lost before that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cluster.history import FinishedJob, PastEvent
from cluster.history.ended import record_of
from cluster.machine.effects import Finished

SYNC_S = 0.3


class SimHistory:
    """What the archivist and the log's truncation need of a history.

    `durable` belongs to the node's disk and survives a crash; the buffer does not."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, durable: dict[int, dict[int, FinishedJob]]
    ) -> None:
        self._loop = loop
        self._durable = durable
        self._buffer: list[tuple[int, Sequence[Finished]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def add(self, index: int, finished: Sequence[Finished]) -> None:
        self._buffer.append((index, finished))
        if self._timer is None:
            self._timer = self._loop.call_later(SYNC_S, self._sync)

    def add_schedule_events(self, index: int, events: Sequence[PastEvent]) -> None:
        """Nothing that jobs depend on: not kept."""

    def skip_to(self, index: int, until_ms: int) -> None:
        """What a snapshot skipped is known to the node's disk (`gaps`)."""

    def _sync(self) -> None:
        self._timer = None
        buffer, self._buffer = self._buffer, []
        for index, lot in buffer:
            for finished in lot:
                self._durable.setdefault(finished.job.id, {})[index] = record_of(finished, index)
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_result(None)

    async def flushed(self, index: int) -> None:
        """Returns when all that was added up to `index` is durable."""
        if any(position <= index for position, _ in self._buffer):
            future: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append((index, future))
            await future

    def crash(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._buffer.clear()
