"""S1: many schedules. What one costs to make, how late they launch, steadily and in a burst, how
long the leader's loop stands still for it, and what a failover costs with all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from bench.harness import QUIET, Result, Scale, quantile, replicas_equal, rss_mb, summary_ms
from chaos.live.processes import LocalCluster

CONNECTIONS = 32
STEADY_S = 10.0
LEAD_S = 5.0  # from the last schedule made to the moment of the burst
SAMPLES = 500
PROBE_S = 0.002
TARGET_LAG = "p99 <= 100 ms"

Create = Callable[[dict[str, object]], Awaitable[None]]


async def measure(scale: Scale, folder: Path) -> list[Result]:
    async with LocalCluster(folder, flags=QUIET) as cluster, aiohttp.ClientSession() as session:
        await cluster.worker("w1", "bench.tasks:app", slots=100)
        leader = await cluster.leader()

        async def create(body: dict[str, object]) -> None:
            fields = {"name": "noop", "overlap": "allow_all", "catchup": "all", **body}
            async with session.post(f"{leader.url}/v1/schedules", json=fields) as response:
                if response.status != 201:
                    raise RuntimeError(f"schedule: {response.status} {await response.text()}")

        made, each_s = await _creation(create, scale.schedules)
        steady = await _steady(cluster, session, create, scale.fires_per_s)
        burst = await _burst(cluster, create, scale.burst, each_s)
        memory = f"{max(rss_mb(cluster))} MiB"
        failover = await _failover(cluster, scale)
        equal = await replicas_equal(cluster)
    what = f"{scale.schedules:,} schedules"
    return [
        Result("S1", f"{what}: making one", {**made, "node RSS": memory}, "O(1)", equal),
        *(
            Result("S2", f"{what}, {rate}: {name}", figures, target, holds)
            for rate, name, figures, target, holds in (*steady, *burst)
        ),
        Result("S3", f"{what}: leader kill -9", failover, "p50 <= 300 ms", equal),
    ]


Row = tuple[str, str, dict[str, str], str, bool]


async def _all(create: Create, bodies: Sequence[dict[str, object]]) -> list[float]:
    """When each was made, in seconds."""
    waiting, times = list(reversed(bodies)), list[float]()

    async def work() -> None:
        while waiting:
            await create(waiting.pop())
            times.append(time.perf_counter())

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return times


async def _creation(create: Create, count: int) -> tuple[dict[str, str], float]:
    """Expressions of a month that is far away, thousands of different ones; seconds for one."""
    month = (datetime.now(UTC).month + 5) % 12 + 1
    bodies: list[dict[str, object]] = [
        {"id": f"idle{n}", "schedule": f"{n % 60} {n // 60 % 24} {n // 1440 % 28 + 1} {month} *"}
        for n in range(count)
    ]
    started = time.perf_counter()
    times = await _all(create, bodies)
    tenth = max(count // 10, 1)
    first_us = (times[tenth - 1] - started) / tenth * 1e6
    last_us = (times[-1] - times[-tenth - 1]) / tenth * 1e6
    figures = {"the first tenth": f"{first_us:.0f} us each", "the last": f"{last_us:.0f} us each"}
    return figures, (times[-1] - started) / count


async def _steady(
    cluster: LocalCluster, session: aiohttp.ClientSession, create: Create, rate: int
) -> list[Row]:
    """So many schedules of one second each, evenly over the second."""
    anchor = time.time()
    ids = [f"steady{n}" for n in range(rate)]
    await _all(
        create,
        [
            {"id": each, "every_seconds": 1, "anchor": _iso(anchor + n / rate)}
            for n, each in enumerate(ids)
        ],
    )
    async with _probed(cluster) as stalls:
        await asyncio.sleep(STEADY_S)
    lags = await _lags(cluster, ids, 10)
    for each in ids:
        await session.delete(f"{(await cluster.leader()).url}/v1/schedules/{each}")
    return _rows(f"{rate:,} fires/s", lags, stalls, len(lags) > 0)


async def _burst(cluster: LocalCluster, create: Create, count: int, each_s: float) -> list[Row]:
    """`each_s`: what making one took, so that all are there when their moment comes."""
    at = time.time() + LEAD_S + 2 * count * each_s
    ids = [f"burst{n}" for n in range(count)]
    await _all(create, [{"id": each, "at": [_iso(at)]} for each in ids])
    await asyncio.sleep(max(at - time.time() - 1, 0))
    async with _probed(cluster) as stalls:
        await asyncio.sleep(max(at - time.time(), 0) + LEAD_S)
    sampled = ids[:: max(count // SAMPLES, 1)]
    lags = await _lags(cluster, sampled, 2)
    return _rows(f"{count:,} at once", lags, stalls, len(lags) == len(sampled))


def _rows(rate: str, lags: list[float], stalls: list[float], holds: bool) -> list[Row]:
    answers = {"p99": f"{quantile(stalls, 0.99):.1f} ms", "max": f"{max(stalls):.1f} ms"}
    return [
        (rate, "fire time to launch", summary_ms(lags), TARGET_LAG, holds),
        (rate, "the leader's /livez meanwhile", answers, "max <= 50 ms", True),
    ]


async def _lags(cluster: LocalCluster, ids: Sequence[str], runs: int) -> list[float]:
    """From nominal time to the job's existence, in ms, of the last runs of each."""
    lags = []
    for each in ids[: SAMPLES * 2]:
        page: Any = await cluster.get(f"/v1/schedules/{each}/runs?limit={runs}")
        for job in page["items"]:
            lags.append((_time(job["created_at"]) - _time(job["nominal_at"])) * 1000)
    return lags


async def _failover(cluster: LocalCluster, scale: Scale) -> dict[str, str]:
    """From the death of the leader to a leader that answers for all schedules."""
    taken = []
    for _ in range(scale.kills):
        leader = await cluster.leader()
        started = time.perf_counter()
        await leader.kill()
        await cluster.leader()
        taken.append((time.perf_counter() - started) * 1000)
        await leader.start()
        await cluster.ready(120)
    return summary_ms(taken)


@asynccontextmanager
async def _probed(cluster: LocalCluster) -> AsyncIterator[list[float]]:
    """How long the leader takes to say that it lives: a loop that stands still says nothing."""
    url = (await cluster.leader()).url
    took: list[float] = []

    async def probe(session: aiohttp.ClientSession) -> None:
        while True:
            started = time.perf_counter()
            async with session.get(f"{url}/livez") as response:
                await response.read()
            took.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(PROBE_S)

    async with aiohttp.ClientSession() as session:
        task = asyncio.create_task(probe(session))
        try:
            yield took
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
