"""Takes away whatever a drill has put into a cluster: everything of its queue."""

from __future__ import annotations

import contextlib

from ..client import Client
from ..errors import NotFound

ROUNDS_MAX = 20


async def clean(client: Client, queue: str) -> list[str]:
    """Cancels the jobs of `queue`, purges its dead letters, deletes the schedule of its name;
    returns what is left all the same, one sentence each. What has ended stays in the history, as
    long as history is kept."""
    with contextlib.suppress(NotFound):
        await client.schedules.delete(queue)
    for _ in range(ROUNDS_MAX):
        live = await client.jobs.cancel_many(queue=queue)
        dead = [job.job_id for job in (await client.dlq.list(queue=queue, limit=500)).items]
        if dead:
            await client.dlq.purge(dead)
        if not live and not dead:
            return []
    left = (await client.stats())["queues"].get(queue, {})
    return [f"{count} jobs {name} in queue {queue}" for name, count in left.items() if count]
