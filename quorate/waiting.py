"""Waits for many jobs at once without drowning the cluster in requests.

The first ones each hold a blocking request, which answers the moment a job ends; the crowd beyond
them shares one status request per round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from .views import FINISHED, ItemResult, JobView

BLOCKING_MAX = 64
READS_MAX = 32  # answers fetched at the same time for the crowd
ASK_IDS_MAX = 500
ROUND_FIRST_SECONDS = 0.05
ROUND_MAX_SECONDS = 1.0

Get = Callable[[str, float | None], Awaitable[JobView]]
Ask = Callable[[Sequence[str]], Awaitable[Sequence[ItemResult]]]


class Waiter:
    """Follows jobs of one client, on one event loop at a time."""

    def __init__(self, get: Get, ask: Ask) -> None:
        self._get = get
        self._ask = ask
        self._blocking = 0
        self._crowd: dict[str, asyncio.Future[None]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._reads: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wait(self, job_id: str, seconds: float) -> JobView:
        """The job once it is finished, or as it is after `seconds`."""
        self._attach()
        if self._blocking < BLOCKING_MAX:
            self._blocking += 1
            try:
                return await self._get(job_id, seconds)
            finally:
                self._blocking -= 1
        await self._wait_in_crowd(job_id, seconds)
        assert self._reads is not None
        async with self._reads:
            return await self._get(job_id, None)

    def _attach(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # what waited on an earlier loop is gone with it
            self._loop, self._crowd, self._watcher, self._blocking = loop, {}, None, 0
            self._reads = asyncio.Semaphore(READS_MAX)

    async def _wait_in_crowd(self, job_id: str, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        future = self._crowd.get(job_id)
        if future is None:
            future = self._crowd[job_id] = loop.create_future()
        if self._watcher is None:
            self._watcher = loop.create_task(self._watch())
        # `wait` leaves the future alone when time is up: others may wait for the same job.
        await asyncio.wait((future,), timeout=seconds)
        if future.done():
            future.result()

    async def _watch(self) -> None:
        """Asks for everyone in rounds, more often while jobs are ending."""
        pause = ROUND_FIRST_SECONDS
        try:
            while self._crowd:
                ended = await self._round(list(self._crowd))
                pause = ROUND_FIRST_SECONDS if ended else min(ROUND_MAX_SECONDS, pause * 1.5)
                await asyncio.sleep(pause)
        except Exception as error:
            for future in self._crowd.values():
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # not every one of them has to be waited for still
            self._crowd.clear()
        finally:
            self._watcher = None

    async def _round(self, ids: Sequence[str]) -> bool:
        ended = False
        for start in range(0, len(ids), ASK_IDS_MAX):
            for item in await self._ask(ids[start : start + ASK_IDS_MAX]):
                # An unknown job ends the wait too: its own request will say so.
                if item.status in FINISHED or not item.ok:
                    future = self._crowd.pop(item.id, None)
                    if future is not None and not future.done():
                        future.set_result(None)
                        ended = True
        return ended
