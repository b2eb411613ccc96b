"""A reference to one submitted job: its id and the ways to follow it.

Holds no state of the job; every question goes to the cluster, so a handle never lies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .durations import Duration, to_seconds
from .errors import JobCancelled, JobFailed, JobSkipped, ResultTimeout
from .transport import Consistency
from .views import JobView

if TYPE_CHECKING:
    from .client import Client

R = TypeVar("R")
WAIT_SECONDS = 20.0  # of one blocking request


class Handle(Generic[R]):
    """One submitted job. R is what its task returns."""

    __slots__ = ("_client", "_convert", "id")

    def __init__(
        self, client: Client, job_id: str, convert: Callable[[Any], R] | None = None
    ) -> None:
        self._client = client
        self.id = job_id
        self._convert = convert

    def __repr__(self) -> str:
        return f"<Handle of job {self.id}>"

    async def job(self, *, consistency: Consistency | None = None) -> JobView:
        """The job as it is now."""
        return await self._client.jobs.get(self.id, consistency=consistency)

    async def status(self, *, consistency: Consistency | None = None) -> str:
        """pending, running, completed, failed, cancelled or skipped."""
        return (await self.job(consistency=consistency)).status

    async def cancel(self) -> JobView:
        """Cancels the job; a running one is really stopped. Conflict if it is finished."""
        return await self._client.jobs.cancel(self.id)

    async def wait(self, timeout: Duration | None = None) -> JobView:
        """The finished job, whatever its end. ResultTimeout after `timeout` (None: never)."""
        loop = asyncio.get_running_loop()
        give_up_at = None if timeout is None else loop.time() + to_seconds(timeout)
        while True:
            left = WAIT_SECONDS if give_up_at is None else give_up_at - loop.time()
            seconds = max(0.0, min(WAIT_SECONDS, left))
            view = await self._client.waiter.wait(self.id, seconds)
            if view.finished:
                return view
            if give_up_at is not None and loop.time() >= give_up_at:
                raise ResultTimeout(f"job {self.id} is still {view.status}")

    async def result(self, timeout: Duration | None = None) -> R:
        """What the task returned.

        Raises JobFailed, JobCancelled or JobSkipped for another end, ResultTimeout after
        `timeout`.
        """
        view = await self.wait(timeout)
        if view.status == "cancelled":
            raise JobCancelled(self.id)
        if view.status == "skipped":
            raise JobSkipped(self.id, view.error_message)
        if view.status == "failed":
            raise JobFailed(
                view.error_message or f"job {self.id} failed",
                job_id=self.id,
                error_type=view.error_type,
                attempt=view.attempt,
            )
        output: Any = view.output
        return output if self._convert is None else self._convert(output)
