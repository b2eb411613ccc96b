"""The light load under which a failure is rehearsed, and the gaps that it saw.

Submissions go through the client as any program's do, with its retries: a gap is what users see.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

from ..client import Client
from ..errors import QuorateError

PER_SECOND = 20.0


class Ack(NamedTuple):
    """A submission that was accepted, at a monotonic time."""

    at: float
    job_id: str


class Load:
    """One job every 50 ms until it is stopped."""

    def __init__(self, client: Client, queue: str, **options: Any) -> None:
        """`options` are those of `client.submit`."""
        self._client = client
        self._options = {"queue": queue, **options}
        self._pause = 1.0 / PER_SECOND
        self._submitting: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._acked = asyncio.Event()
        self.acks: list[Ack] = []
        self.refused: list[str] = []

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Submits nothing more, and waits for the answers that are under way."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        await asyncio.gather(*self._submitting)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            task = loop.create_task(self._submit())
            self._submitting.add(task)
            task.add_done_callback(self._submitting.discard)
            await asyncio.sleep(self._pause)

    async def _submit(self) -> None:
        try:
            handle = await self._client.submit("drill.quick", **self._options)
        except QuorateError as error:
            self.refused.append(str(error))
            return
        self.acks.append(Ack(time.monotonic(), handle.id))
        self._acked.set()

    async def until_ack_after(self, moment: float) -> None:
        """Returns once something was accepted after `moment`."""
        while not self.acks or self.acks[-1].at <= moment:
            self._acked.clear()
            await self._acked.wait()


def longest_gap(moments: Iterable[float], since: float, until: float) -> float:
    """The longest time in [since, until] in which nothing happened, with what went before it: a gap
    that a fault causes may begin a little before it."""
    times = sorted(moments)
    before = [t for t in times if t < since][-1:]
    inside = [t for t in times if since <= t <= until]
    points = [*(before or [since]), *inside, until]
    return max(b - a for a, b in pairwise(points))
