"""P11: 100,000 workers and 1,000,000 running jobs at one leader, in process and virtual time.

What is real and what is not says `bench/fleet.py`. Figures are CPU time of the leader's thread.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.fleet import COMMIT_S, SLOTS, Collections, Fleet, MeasuringLoop
from bench.harness import Result, Scale
from cluster.main import GC_THRESHOLDS

WORKERS = {"quick": 10_000, "full": 100_000}
JOB_S = 100  # how long a job runs: with all slots busy, a tenth of the workers ends one each second
TOGETHER = 500
BEATING_S, TURNOVER_S = 10.0, 20.0
LOST = 1_000
TARGET = "the leader keeps up in real time: load < 1"


@dataclass
class Costs:
    """CPU seconds by what they were spent on, the workers' side excluded."""

    fleet: Fleet
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        began, aside = time.thread_time(), self.fleet.aside_s
        yield
        spent = time.thread_time() - began - (self.fleet.aside_s - aside)
        self.seconds[what] = self.seconds.get(what, 0.0) + spent

    def us(self, what: str, count: int) -> str:
        return f"{self.seconds[what] / count * 1e6:.1f} us"


async def measure(scale: Scale, folder: Path) -> list[Result]:
    """In a thread, for the loop of virtual time is another one than that of the rows."""
    return await asyncio.to_thread(_run, WORKERS[scale.name])


def _run(workers: int) -> list[Result]:
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()  # as a node does
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        with asyncio.Runner(loop_factory=MeasuringLoop) as runner:
            loop: Any = runner.get_loop()
            return runner.run(_measure(workers, loop))
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


async def _measure(workers: int, loop: MeasuringLoop) -> list[Result]:
    fleet, collections, sizes = Fleet(JOB_S * 1000), Collections(), [_rss_bytes()]
    costs, running = Costs(fleet), workers * SLOTS
    sweeps = _timed(fleet.detector, "receive")
    with collections.watched():
        await fleet.lead()
        with costs.of("register"):
            for _ in range(workers // TOGETHER):
                await fleet.register(TOGETHER)
        sizes.append(_rss_bytes())
        sweeps.seconds = 0.0
        with costs.of("beating"):
            beaten = (await fleet.live(BEATING_S))["heartbeats"]
        swept_s = sweeps.seconds
        await _fill(fleet, costs, workers)
        sizes.append(_rss_bytes())
        with costs.of("turnover"):
            turned = await fleet.live(TURNOVER_S, jobs_per_s=running // JOB_S)
            await fleet.settled()
        await _complete(fleet, costs, workers)
    # Not while sessions are replaced: here they are the same process's, and as the old ones go the
    # collector does not see how many new ones there are.
    done = turned["completions"]
    holds = fleet.booked(submitted=running + turned["submissions"], completed=done + workers)
    failover_s = await _fail_over(fleet, costs, loop)
    holds = holds and await _lose(fleet, costs) == workers - LOST
    load = costs.seconds["turnover"] / TURNOVER_S
    beat_us = (costs.seconds["beating"] - swept_s) / beaten * 1e6
    job_us = (costs.seconds["turnover"] * 1e6 - turned["heartbeats"] * beat_us) / done
    return [
        Result(
            "P11",
            f"{workers:,} workers, {running:,} running jobs: load of the leader's loop",
            {
                "load": f"{load:.2f} of one core",
                "heartbeats": f"{turned['heartbeats'] / TURNOVER_S:,.0f}/s",
                "jobs submitted, assigned and completed": f"{done / TURNOVER_S:,.0f}/s",
                "with idle workers": f"{costs.seconds['beating'] / BEATING_S:.3f}",
            },
            TARGET,
            holds,
        ),
        Result(
            "P11",
            "CPU time of one",
            {
                "registration": costs.us("register", workers),
                "heartbeat": f"{beat_us:.2f} us",
                "submission in batches of 1,000": costs.us("submit", running),
                "assignment alone in its command": costs.us("assign", running),
                "completion alone in its frame": costs.us("complete", workers),
                "job, from its submission to its acknowledgement": f"{job_us:.0f} us",
                "lost worker with its jobs": costs.us("lose", LOST),
                "second of failure detection": f"{swept_s / BEATING_S * 1e3:.1f} ms",
            },
            "independent of the number of workers",
            holds,
        ),
        Result(
            "P11",
            "memory and pauses",
            {
                "a worker": f"{(sizes[1] - sizes[0]) / workers:,.0f} B",
                "a running job": f"{(sizes[2] - sizes[1]) / running:,.0f} B",
                "longest collection": _pauses(collections),
                "longest turn when a new leader begins": f"{failover_s * 1e3:.0f} ms",
                "its whole beginning": f"{costs.seconds['failover']:.2f} s",
            },
            "collections <= 10 ms",
            holds,
        ),
    ]


async def _fill(fleet: Fleet, costs: Costs, workers: int) -> None:
    """Every slot gets a job, each worker one at a time."""
    with costs.of("submit"):
        for _ in range(workers * SLOTS // 1_000):
            await fleet.submit(1_000)
    for wave in range(1, SLOTS + 1):
        with costs.of("assign"):
            for worker in fleet.workers:
                fleet.desk.grant(worker.id, 1)
            while fleet.running < wave * workers:  # noqa: ASYNC110  (virtual time)
                await asyncio.sleep(COMMIT_S)
        for worker in fleet.workers:
            fleet.desk.seen(worker.id)
        fleet.take_in(spread=True)


async def _complete(fleet: Fleet, costs: Costs, count: int) -> None:
    """Jobs end while nothing waits to take their places."""
    held = fleet.ending(count)
    with costs.of("complete"):
        for first in range(0, len(held), TOGETHER):
            fleet.finish(held[first : first + TOGETHER])
            await asyncio.sleep(COMMIT_S)
        await fleet.settled()


async def _fail_over(fleet: Fleet, costs: Costs, loop: MeasuringLoop) -> float:
    """A new leader begins with workers that have not found it yet. Its longest turn, in s."""
    await fleet.resign()
    loop.longest_s = 0.0
    with costs.of("failover"):
        await fleet.lead()
        await asyncio.sleep(0.2)
    longest_s = loop.longest_s
    for first in range(0, len(fleet.workers), TOGETHER):
        await fleet.return_all(fleet.workers[first : first + TOGETHER])
    return longest_s


async def _lose(fleet: Fleet, costs: Costs) -> int:
    """Some workers fall silent, the others do not. How many are left."""
    for _ in range(6):
        for worker in fleet.workers[LOST:]:
            fleet.desk.seen(worker.id)
        with costs.of("lose"):
            await asyncio.sleep(2.0)
    return len(fleet.raft.state.tables.workers)


@dataclass
class _Timed:
    seconds: float = 0.0


def _timed(actor: Any, name: str) -> _Timed:
    """CPU time inside a coroutine method that does not wait while nothing is wrong."""
    timed, method = _Timed(), getattr(actor, name)

    async def measured(*arguments: object) -> object:
        began = time.thread_time()
        try:
            return await method(*arguments)
        finally:
            timed.seconds += time.thread_time() - began

    setattr(actor, name, measured)
    return timed


def _pauses(collections: Collections) -> str:
    each = zip(collections.longest_s, collections.count, strict=True)
    return " / ".join(f"{longest_s * 1e3:.1f} ms ({count})" for longest_s, count in each)


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
