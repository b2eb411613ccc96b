"""M: more than one core: the rows P1, P2 and P3 with and without ingest processes, and what the
leader could do if its core were its own.

Rates on two cores say little, for whatever leaves the leader's process lands on a core that the
followers and the load need. So each row also tells the CPU time that each process spends per job:
the leader's loop is the one thing that cannot be spread, and a million divided by it is the rate at
which a core of its own would be full.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from bench.flow import SLOTS, end_to_end
from bench.flow import Load as Flowing
from bench.harness import QUIET, Result, Scale, batch_body, by_status, job_json, post_batch
from bench.rows.p1_submit import BATCH, CLIENTS
from bench.rows.p3_single import _post_all
from bench.usage import NOTHING, Usage, usage_of
from chaos.live.processes import LocalCluster, NodeChild

INGEST = (0, 1, 2)
Load = Callable[[str, int], Awaitable[None]]


async def measure(scale: Scale, folder: Path) -> list[Result]:
    results = []
    for is_pinned in (False, True):
        for ingest in INGEST:
            where = folder / f"{ingest}{is_pinned}"
            results += await _with(scale, where, ingest, is_pinned)
            results.append(await _flowing(scale, where / "flow", ingest, is_pinned))
    return results


def _setup(ingest: int, is_pinned: bool) -> str:
    return f"ingest {ingest}" + (", the leader on a core of its own" if is_pinned else "")


async def _with(scale: Scale, folder: Path, ingest: int, is_pinned: bool) -> list[Result]:
    flags = [*QUIET, "--ingest", str(ingest)]
    setup = _setup(ingest, is_pinned)
    rows = (
        (f"P1, batches of {BATCH}, {setup}", _batches, scale.submissions),
        (f"P3, single POST, {setup}", _singles, scale.singles),
    )
    async with LocalCluster(folder, flags=flags) as cluster:
        leader = await cluster.leader()
        everywhere = os.sched_getaffinity(0)
        if is_pinned:
            _pin(cluster, leader)
        results = []
        expected = 0
        for what, load, count in rows:
            await load(leader.url, BATCH)  # connections and caches are warm
            figures = await _measured(cluster, leader, load, count)
            expected += BATCH + count
            holds = (await by_status(cluster))["pending"] == expected
            results.append(Result("M", what, figures, "shown", holds))
        os.sched_setaffinity(0, everywhere)
    return results


async def _flowing(scale: Scale, folder: Path, ingest: int, is_pinned: bool) -> Result:
    """P2. What an ingest process uses is not counted among the shares."""
    flags = [*QUIET, "--ingest", str(ingest)]
    everywhere = os.sched_getaffinity(0)
    async with LocalCluster(folder, flags=flags) as cluster:
        leader = await cluster.leader()
        await cluster.worker("w1", "bench.tasks:app", slots=SLOTS)
        if is_pinned:
            _pin(cluster, leader)
        flow = await end_to_end(cluster, Flowing(scale.end_to_end // 2))
        os.sched_setaffinity(0, everywhere)
    loop_s, jobs = flow.shares["leader"].loop_cpu_s, flow.load.jobs
    figures = {
        "rate": f"{flow.rate:,.0f} jobs/s",
        "leader's loop": f"{loop_s / jobs * 1e6:.2f} us/job, {loop_s / flow.seconds:.0%} of a core",
        "full at": f"{jobs / loop_s:,.0f} jobs/s",
        **{role: f"{flow.cpu_us(role):.2f} us/job" for role in flow.shares},
    }
    return Result("M", f"P2, {_setup(ingest, is_pinned)}", figures, "shown", flow.holds)


async def _measured(
    cluster: LocalCluster, leader: NodeChild, load: Load, count: int
) -> dict[str, str]:
    roles = {
        "leader": [leader.pid],
        "ingest": _children(leader.pid),
        "followers": [node.pid for node in cluster.nodes if node is not leader],
        "load": [os.getpid()],
    }
    before = {role: _usage(pids) for role, pids in roles.items()}
    started = time.perf_counter()
    await load(leader.url, count)
    seconds = time.perf_counter() - started
    spent = {role: _usage(pids) - before[role] for role, pids in roles.items()}
    loop_s = spent["leader"].loop_cpu_s
    return {
        "rate": f"{count / seconds:,.0f} jobs/s",
        "leader's loop": f"{loop_s / count * 1e6:.2f} us/job, {loop_s / seconds:.0%} of a core",
        "full at": f"{count / loop_s:,.0f} jobs/s",
        **{role: f"{usage.cpu_s / count * 1e6:.2f} us/job" for role, usage in spent.items()},
    }


async def _batches(url: str, count: int) -> None:
    body, left = batch_body(BATCH, "noop"), count
    async with aiohttp.ClientSession() as session:

        async def client() -> None:
            nonlocal left
            while left > 0:
                left -= BATCH
                await post_batch(session, url, body)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def _singles(url: str, count: int) -> None:
    await _post_all(f"{url}/v1/jobs", job_json("noop"), count, 201)


def _usage(pids: list[int]) -> Usage:
    return sum(map(usage_of, pids), NOTHING)


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def _pin(cluster: LocalCluster, leader: NodeChild) -> None:
    """The leader's process alone on the last core, everything else on the others."""
    *others, last = sorted(os.sched_getaffinity(0))
    for process in [*cluster.nodes, *cluster.workers]:
        for pid in [process.pid, *_children(process.pid)]:
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {last} if pid == leader.pid else others)
    os.sched_setaffinity(0, others)
