"""What the failover rows share: load, a client that measures the gap, and the nodes' own record.

The gap is what a client sees: from the fault to the answer of the first submission that was *sent
after* it and acknowledged by any node. Probes ask all nodes in turn, also the dead one, once each
and with a deadline; they do not know who leads. Beside it stands the nodes' own measure: from the
fault to the line in a node's log that says that its epoch is open, which is its first commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

import aiohttp
import msgspec

from bench.harness import Result, job_json, quantile
from chaos.live.processes import LocalCluster, NodeChild
from quorate import Client, JobRequest, QuorateError

PROBES = 6
PROBE_PAUSE_S = 0.005
DEADLINE_S = 0.25
LOAD_BATCH = 50
LOAD_BATCHES_PER_S = 20
GIVE_UP_S = 20.0
# Small snapshots: a node that was killed is back soon, so that many faults fit into a run.
SHOW_LOGS = ("--log-level", "info", "--snapshot-journal-mb", "2")

_EPOCH = re.compile(r"^(\S+ \S+) INFO quorate\.raft \[\S+\] leading: epoch (\d+) open")


@dataclass
class Outage:
    """One fault: both gaps in ms; `epoch_ms` is None when leadership did not change."""

    client_ms: float
    epoch_ms: float | None


class Probes:
    """Clients that submit one job at a time, each with one try and a deadline."""

    def __init__(self, session: aiohttp.ClientSession, urls: list[str]) -> None:
        self._session = session
        self._urls = urls
        self._stopped = False
        self._tasks = [asyncio.create_task(self._probe(n)) for n in range(PROBES)]
        self._fault_s = float("inf")
        self._answered: asyncio.Future[float] | None = None
        self.acknowledged: list[tuple[float, float]] = []  # (sent, answered)
        self.failed = 0

    async def _probe(self, at: int) -> None:
        body, headers = job_json("noop"), {"Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
        while not self._stopped:
            at += 1
            url = self._urls[at % len(self._urls)] + "/v1/jobs"
            sent_s = time.time()
            try:
                async with self._session.post(
                    url, data=body, headers=headers, timeout=timeout
                ) as answer:
                    await answer.read()
                    if answer.status == 201:
                        self._note(sent_s, time.time())
                    else:
                        self.failed += 1
            except (aiohttp.ClientError, TimeoutError, OSError):
                self.failed += 1
            await asyncio.sleep(PROBE_PAUSE_S)

    def _note(self, sent_s: float, answered_s: float) -> None:
        self.acknowledged.append((sent_s, answered_s))
        waiting = self._answered
        if waiting is not None and not waiting.done() and sent_s >= self._fault_s:
            waiting.set_result(answered_s)

    async def gap_ms(self, fault: Callable[[], None]) -> tuple[float, float]:
        """Does it; when it was done (Unix time), and how long nothing was acknowledged, in ms."""
        self._answered = asyncio.get_running_loop().create_future()
        self._fault_s = time.time()
        fault()
        try:
            answered_s = await asyncio.wait_for(self._answered, GIVE_UP_S)
        finally:
            self._answered = None
        return self._fault_s, (answered_s - self._fault_s) * 1000

    @staticmethod
    def now_s() -> float:
        """The clock of `acknowledged`."""
        return time.time()

    def longest_silence_ms(self, from_s: float, until_s: float) -> float:
        """The longest time without any acknowledgement."""
        times = [from_s, *sorted(a for _, a in self.acknowledged if from_s < a < until_s), until_s]
        return max(b - a for a, b in pairwise(times)) * 1000

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)


@dataclass
class Load:
    """A thousand jobs a second in small batches, through the SDK, which retries with keys."""

    client: Client
    batches_per_s: int = LOAD_BATCHES_PER_S
    ids: list[str] = field(default_factory=list)
    failed: int = 0
    _stopped: bool = False

    async def run(self) -> None:
        jobs = [JobRequest(name="noop", payload=msgspec.Raw(b'"x"'))] * LOAD_BATCH
        start, sent = time.perf_counter(), 0
        pending: set[asyncio.Task[None]] = set()
        while not self._stopped:
            sent += 1
            task = asyncio.create_task(self._submit(jobs))
            pending.add(task)
            task.add_done_callback(pending.discard)
            await asyncio.sleep(max(start + sent / self.batches_per_s - time.perf_counter(), 0))
        await asyncio.gather(*pending)

    async def _submit(self, jobs: list[JobRequest]) -> None:
        try:
            self.ids += [handle.id for handle in await self.client.submit_many(jobs)]
        except QuorateError:
            self.failed += 1

    def stop(self) -> None:
        self._stopped = True


@dataclass
class Rig:
    cluster: LocalCluster
    probes: Probes
    load: Load
    loading: asyncio.Task[None]

    async def outage(self, fault: Callable[[], None]) -> Outage:
        before = await self.terms()
        fault_s, client_ms = await self.probes.gap_ms(fault)
        opened = [  # by now: whoever answered had opened its epoch
            (epoch, at_s)
            for node in self.cluster.nodes
            for epoch, at_s in epochs(node)
            if epoch > max(before)
        ]
        return Outage(client_ms, (min(opened)[1] - fault_s) * 1000 if opened else None)

    async def terms(self) -> list[int]:
        """Of all running nodes."""
        running = [node for node in self.cluster.nodes if node.is_running]
        return [(await self.cluster.get("/v1/cluster", node))["term"] for node in running]

    async def leadership(self) -> tuple[int, str]:
        """Term and leader, once all nodes agree on them."""
        seen: set[tuple[int, str]] = set()

        async def agreed() -> bool:
            seen.clear()
            for node in self.cluster.nodes:
                status = await self.cluster.get("/v1/cluster", node)
                seen.add((status["term"], status["leader_id"]))
            return len(seen) == 1

        await self.cluster.until(agreed, "one leader everywhere")
        return seen.pop()

    async def settled(self) -> None:
        """All nodes run and are ready, agree on who leads, and follow it closely: a node that was
        cut off looks ready to itself, and TCP takes its time to notice that the wire is back."""
        await self.cluster.ready(60)
        await self.leadership()
        leader = await self.cluster.leader()
        goal = (await self.cluster.get("/v1/cluster", leader))["commit_index"]

        async def level() -> bool:
            members = (await self.cluster.get("/v1/cluster", leader))["members"]
            return all((member["match_index"] or 0) >= goal for member in members)

        await self.cluster.until(level, "all nodes to follow closely", 60)

    async def nothing_lost(self) -> bool:
        """Ends the load; no id was given twice, and every acknowledged job completed."""
        await self.end()
        await self._finished()
        stats = await self.cluster.get("/v1/stats")
        ids = self.load.ids
        acknowledged = len(ids) + len(self.probes.acknowledged)
        completed = stats["jobs_by_status"]["completed"]
        if completed >= acknowledged and len(set(ids)) == len(ids):
            return True
        print(f"{acknowledged} acknowledged, {completed} completed", file=sys.stderr)
        return False

    async def end(self) -> None:
        self.load.stop()
        await self.probes.stop()
        await self.loading

    async def _finished(self) -> None:
        async def finished() -> bool:
            counts: dict[str, int] = (await self.cluster.get("/v1/stats"))["jobs_by_status"]
            return counts["pending"] + counts["running"] == 0

        await self.cluster.until(finished, "all jobs to end", 60)


@contextlib.asynccontextmanager
async def under_load(
    cluster: LocalCluster, batches_per_s: int = LOAD_BATCHES_PER_S
) -> AsyncIterator[Rig]:
    """A running cluster with a worker, probes and load."""
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        Client(cluster.urls) as client,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        await cluster.worker("w1", "bench.tasks:app", slots=200)
        load = Load(client, batches_per_s)
        loading = asyncio.create_task(load.run())
        probes = Probes(session, [node.url for node in cluster.nodes])
        rig = Rig(cluster, probes, load, loading)
        try:
            yield rig
        finally:
            await rig.end()


def epochs(node: NodeChild) -> list[tuple[int, float]]:
    """When this node's epochs were open, by its own log: (epoch, Unix time)."""
    found = []
    for line in node.log_text().splitlines():
        match = _EPOCH.match(line)
        if match:
            at = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S,%f").astimezone()
            found.append((int(match[2]), at.timestamp()))
    return found


def result(row: str, what: str, outages: list[Outage], target: str, **more: Any) -> Result:
    """`holds` only says that the outcome was right; whether the target is met is in the figures."""
    client = [outage.client_ms for outage in outages]
    epoch = [outage.epoch_ms for outage in outages if outage.epoch_ms is not None]
    figures = {
        "client p50": f"{quantile(client, 0.5):.0f} ms",
        "p99": f"{quantile(client, 0.99):.0f} ms",
        "max": f"{max(client):.0f} ms",
        "epoch open p50": f"{quantile(epoch, 0.5):.0f} ms",
        "p99 ": f"{quantile(epoch, 0.99):.0f} ms",
        "n": str(len(outages)),
    }
    return Result(row, what, figures, target, **more)
