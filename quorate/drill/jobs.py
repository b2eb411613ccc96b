"""The jobs of a drill, and its looks at everybody's: counts, and random jobs field by field."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from ..client import Client
from ..errors import NotFound
from ..requests import JobRequest, job_request
from ..views import FINISHED
from .step import DrillError

Jobs = dict[str, dict[str, Any]]
NEAR = (
    100_000  # newest ids, of which most of a sample comes: old ones are mostly out of the history
)
DRAWN = 600
PAGE = 200
READS_MAX = 16
ASK_MAX = 5_000
LOOK_SECONDS = 0.1
QUICK, DELAYED, FAILING = 40, 20, 4


class Counts(NamedTuple):
    """The whole cluster's numbers at one moment."""

    by_status: dict[str, int]
    totals: dict[str, int]
    dead_letters: int
    log_index: int

    @property
    def live(self) -> dict[str, int]:
        return {status: self.by_status[status] for status in ("pending", "running")}

    @property
    def standing(self) -> dict[str, int]:
        """What is in the state itself; pending and running in one, for what ran is retried."""
        return {"live": sum(self.live.values()), "dead letters": self.dead_letters}

    def moved_since(self, earlier: Counts) -> int:
        """How many jobs came or ended since, at most."""
        return sum(abs(n - earlier.totals.get(name, 0)) for name, n in self.totals.items())


async def counts(client: Client) -> Counts:
    stats = await client.stats(consistency="linearizable")
    return Counts(
        dict(stats["jobs_by_status"]), dict(stats["totals"]), stats["dead_letters"], stats["index"]
    )


async def fetch(client: Client, ids: Iterable[str]) -> Jobs:
    """Jobs as the API shows them; those that it does not know are left out."""
    reads = asyncio.Semaphore(READS_MAX)

    async def one(job_id: str) -> tuple[str, dict[str, Any] | None]:
        async with reads:
            try:
                path = f"/v1/jobs/{job_id}"
                params = {"consistency": "linearizable"}
                return job_id, dict(await client.transport.json("GET", path, params=params))
            except NotFound:
                return job_id, None

    found = await asyncio.gather(*(one(job_id) for job_id in ids))
    return {job_id: job for job_id, job in found if job is not None}


async def statuses(client: Client, ids: Sequence[str]) -> dict[str, str]:
    """Status by id, of those that are known."""
    found: dict[str, str] = {}
    for start in range(0, len(ids), ASK_MAX):
        items = await client.jobs.status_many(
            ids[start : start + ASK_MAX], consistency="linearizable"
        )
        found.update({item.id: item.status for item in items if item.ok and item.status})
    return found


async def draw(client: Client, top: int, wanted: int, live_only: bool) -> list[str]:
    """Ids of random jobs below `top`, anybody's; fewer where there are fewer.

    `live_only` leaves out what may be in the history alone."""
    near, far = range(max(1, top - NEAR), top), range(1, top)
    tried = {str(i) for r in (near, far) for i in random.sample(r, min(len(r), DRAWN // 2))}
    known = await statuses(client, sorted(tried))
    for status in ("pending", "running"):
        page = await client.jobs.list(status=status, limit=PAGE)
        known.update({job.job_id: job.status for job in page.items if int(job.job_id) < top})
    ids = [i for i, status in known.items() if not (live_only and status in FINISHED)]
    return random.sample(ids, min(len(ids), wanted))


async def until_status(
    client: Client, ids: Sequence[str], wanted: Collection[str], seconds: float
) -> dict[str, int]:
    """Counts by status once all have a wanted one, or time is up."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + seconds
    while True:
        known = await statuses(client, ids)
        found = Counter(known.get(job_id, "missing") for job_id in ids)
        if all(status in wanted for status in found) or loop.time() > give_up_at:
            return dict(found)
        await asyncio.sleep(LOOK_SECONDS)


async def timelines(client: Client, ids: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """What happened to each job, oldest first."""
    reads = asyncio.Semaphore(READS_MAX)

    async def one(job_id: str) -> tuple[str, list[dict[str, Any]]]:
        async with reads:
            answer = await client.transport.json("GET", f"/v1/jobs/{job_id}/timeline")
            return job_id, list(answer["events"])

    return dict(await asyncio.gather(*(one(job_id) for job_id in ids)))


class TestJobs:
    """Jobs of every kind in the drill's queue, by kind."""

    __test__ = False  # no class of tests, whatever pytest thinks of the name

    def __init__(self, client: Client, queue: str, minutes: float) -> None:
        self._client = client
        self._queue = queue
        self._delay = timedelta(minutes=minutes)
        self.ids: dict[str, list[str]] = {}

    @property
    def all_ids(self) -> list[str]:
        return [job_id for ids in self.ids.values() for job_id in ids]

    async def submit(self, kind: str, name: str, payloads: Sequence[Any], **options: Any) -> None:
        """DrillError when one is refused."""
        requests = [self._request(name, payload, options) for payload in payloads]
        handles = await self._client.submit_many(requests)
        self.ids.setdefault(kind, []).extend(handle.id for handle in handles)

    def _request(self, name: str, payload: Any, options: dict[str, Any]) -> JobRequest:
        # What is left of a drill that was killed goes by itself.
        limit = self._delay if "delay" not in options else 2 * self._delay
        return job_request(name, payload, {"queue": self._queue, "queue_timeout": limit, **options})

    async def fill(self, running: int, until_file: str) -> None:
        """Completed, failed and scheduled jobs, `running` ones that end when the file appears, and
        a schedule; returns when each is where it belongs."""
        await self.submit("completed", "drill.quick", [{"n": n} for n in range(QUICK)])
        await self.submit("failed", "drill.fail", list(range(FAILING)), max_retries=0)
        await self.submit("scheduled", "drill.quick", list(range(DELAYED)), delay=self._delay)
        await self.submit("running", "drill.hold", [until_file] * running)
        await self._client.schedules.put(
            self._queue, "drill.quick", "0 3 29 2 *", queue=self._queue, tags=["quorate-drill"]
        )
        wanted = {"completed": "completed", "failed": "failed", "running": "running"}
        for kind, status in wanted.items():
            found = await until_status(self._client, self.ids[kind], (status,), 60.0)
            if set(found) - {status}:
                raise DrillError(f"the drill's jobs that should be {status} are {found}")
