"""How others see that a drill runs, and stop it: a job that nobody runs.

It waits in the drill's queue with a tag, so `quorate jobs list --tag quorate-drill` and every page
that lists jobs shows it, with who began what. Its unique key allows one drill at a time. Cancelling
it, from anywhere, ends the drill; its expiry ends a drill that was forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import socket
from collections.abc import Sequence
from datetime import timedelta

from ..client import Client
from ..errors import Conflict, NotFound, Unavailable
from ..views import JobView
from .cleaning import clean
from .step import DrillError

TAG = "quorate-drill"
NAME = "drill.announcement"
LOOK_SECONDS = 1.0


async def announce(client: Client, drill: str, queue: str, minutes: float) -> str:
    """The job's id. DrillError when another drill runs."""
    payload = {
        "drill": drill,
        "by": f"{_user()}@{socket.gethostname()}",
        "stop": "quorate drill abort, or cancel this job",
    }
    try:
        handle = await client.submit(
            NAME,
            payload,
            queue=queue,
            tags=[TAG],
            key=TAG,
            key_ttl=0,
            on_conflict="reject",
            queue_timeout=timedelta(minutes=minutes),
        )
    except Conflict as error:
        raise DrillError(
            f"another drill runs ({error}); end it with: quorate drill abort"
        ) from None
    return handle.id


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return "unknown"


async def standing(client: Client) -> Sequence[JobView]:
    """The announcements of drills that run."""
    page = await client.jobs.list(status="pending", tag=TAG)
    return [job for job in page.items if job.name == NAME]


async def until_withdrawn(client: Client, job_id: str) -> str:
    """Returns, with the reason, once the announcement does not stand any more."""
    while True:
        try:
            job = await client.jobs.get(job_id)
        except Unavailable:  # part of many a drill
            await asyncio.sleep(LOOK_SECONDS)
            continue
        except NotFound:
            return "its announcement is gone"
        if job.status == "failed":  # it has expired
            return "its time is up (--minutes)"
        if job.finished:
            return "its announcement was cancelled"
        await asyncio.sleep(LOOK_SECONDS)


async def end_all(client: Client) -> dict[str, list[str]]:
    """Withdraws every announcement and cleans up after drills that were killed; their queues."""
    queues = []
    for job in await standing(client):
        with contextlib.suppress(Conflict):  # it has ended meanwhile
            await client.jobs.cancel(job.job_id)
        await clean(client, job.queue)
        queues.append(job.queue)
    if queues:  # workers whose drill was killed go on without it
        for worker in await client.workers.list():
            if set(worker.queues) <= set(queues):
                await client.workers.drain(worker.worker_id)
    return {"queues": queues}
