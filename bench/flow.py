"""Jobs flow through a whole cluster, from a client's POST to the booked result, and all is counted.

Nodes, worker and load generator are processes of their own; this one is the load generator. Nothing
is sampled: CPU time is the kernel's, counts are the nodes' own, the outcome is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from dataclasses import dataclass, field, replace

import aiohttp

from bench.harness import batch_body, by_status, post_batch, replicas_equal, varied_body
from bench.histogram import Latencies
from bench.usage import NOTHING, Usage, rss_bytes, usage_of
from chaos.live.processes import LocalCluster, NodeChild

WATCH_S = 0.02
HELD_BACK_S = 0.005
SLOTS = 2_000
GIVE_UP_S = 300.0
COUNTERS = (
    "quorate_raft_journal_bytes_written",
    "quorate_raft_fsyncs",
    "quorate_raft_entries_sent",
    "quorate_raft_frames_out",
    "quorate_raft_bytes_out",
    "quorate_proposed_batches",
    "quorate_proposed_commands",
    "quorate_assigned_jobs",
    "quorate_raft_snapshots_taken",
)
STALL = "quorate_loop_longest_stall_seconds"


@dataclass(frozen=True)
class Load:
    """What is submitted, and how."""

    jobs: int
    batch: int = 1_000
    payload_bytes: int = 100
    clients: int = 2
    ahead_jobs: int = 20_000  # how far submission may run ahead of completion
    is_varied: bool = False  # payloads that hardly compress; else all are alike

    def body(self) -> bytes:
        make = varied_body if self.is_varied else batch_body
        return make(self.batch, "noop", self.payload_bytes)


@dataclass
class Flow:
    """What a run took. `shares` are of leader, followers, worker and client."""

    load: Load
    seconds: float
    shares: dict[str, Usage]
    counts: dict[str, float]  # the leader's, of this run
    posts: Latencies
    rss_mb: int  # of the largest node
    history_bytes: int
    holds: bool
    longest_stall_ms: float  # of the leader's loop since its start, a busy machine's part included
    stalls: Latencies = field(default_factory=Latencies)

    @property
    def rate(self) -> float:
        return self.load.jobs / self.seconds

    def cpu_us(self, *roles: str) -> float:
        """CPU microseconds per job of these processes, of all when none is named."""
        chosen = [self.shares[role] for role in roles or self.shares]
        return sum(share.cpu_s for share in chosen) / self.load.jobs * 1e6

    def cost(self) -> dict[str, str]:
        """CPU seconds per 10,000 jobs, all processes, and each one's share."""
        parts = ", ".join(f"{role} {self.cpu_us(role) / 100:.3f}" for role in self.shares)
        return {"cpu": f"{self.cpu_us() / 100:.3f} s per 10,000 jobs ({parts})"}

    def per_job(self) -> dict[str, str]:
        """Bytes and steps of the leader."""
        jobs, counts = self.load.jobs, self.counts
        thousands = jobs / 1000
        return {
            "log": f"{counts['quorate_raft_journal_bytes_written'] / jobs:.0f} B/job",
            "disk": f"{self.shares['leader'].written_bytes / jobs:.0f} B/job",
            "history": f"{self.history_bytes / jobs:.0f} B/job",
            "entries": f"{counts['quorate_proposed_batches'] / thousands:.1f} per 1,000 jobs",
            "fsyncs": f"{counts['quorate_raft_fsyncs'] / thousands:.1f} per 1,000 jobs",
            "node RSS": f"{self.rss_mb} MiB",
            "snapshots": f"{counts['quorate_raft_snapshots_taken']:.0f}",
            "leader's longest stall": f"{self.longest_stall_ms:.0f} ms",
        }

    def by_thread(self) -> dict[str, str]:
        """CPU microseconds per job, the event loop and the other threads of each process."""
        each = 1e6 / self.load.jobs
        return {
            role: f"{share.loop_cpu_s * each:.1f} + {share.threads_cpu_s * each:.1f} us/job"
            for role, share in self.shares.items()
        }


class Meter:
    """Reads the processes and the leader's counters twice."""

    def __init__(self, cluster: LocalCluster, leader: NodeChild) -> None:
        self._cluster = cluster
        self._leader = leader
        self._shares: dict[str, Usage] = {}
        self._counts: dict[str, float] = {}
        self._history_bytes = 0

    async def start(self) -> None:
        self._counts = await counters(self._cluster, self._leader)
        self._history_bytes = history_bytes(self._leader)
        self._shares = self._read()

    async def stop(self) -> dict[str, Usage]:
        """What each kind of process used, with what they still do when the last job has ended: the
        followers' applying, history. Of a snapshot that is not done by then the child is missing,
        and it is not among the snapshots that are counted."""
        await replicas_equal(self._cluster)
        await self.history_grew_bytes()
        return {role: share - self._shares[role] for role, share in self._read().items()}

    async def counted(self) -> dict[str, float]:
        """What the leader counted; 0 for what it does not count."""
        after = await counters(self._cluster, self._leader)
        return {name: after.get(name, 0.0) - self._counts.get(name, 0.0) for name in COUNTERS}

    async def longest_stall_ms(self) -> float:
        return (await counters(self._cluster, self._leader))[STALL] * 1000

    async def history_grew_bytes(self) -> int:
        """Once it grows no more: finished jobs are written a little later."""
        before, size = -1, history_bytes(self._leader)
        while before != size:
            await asyncio.sleep(0.3)
            before, size = size, history_bytes(self._leader)
        return size - self._history_bytes

    def _read(self) -> dict[str, Usage]:
        followers = [node for node in self._cluster.nodes if node is not self._leader]
        shares = {"leader": usage_of(self._leader.pid)}
        if followers:
            shares["followers"] = sum((usage_of(node.pid) for node in followers), NOTHING)
        if self._cluster.workers:
            workers = self._cluster.workers
            shares["worker"] = sum((usage_of(worker.pid) for worker in workers), NOTHING)
        shares["client"] = usage_of(os.getpid())
        return shares


async def counters(cluster: LocalCluster, node: NodeChild) -> dict[str, float]:
    """A node's metrics without labels, by name."""
    _, text = await cluster.request("GET", "/metrics", node)
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in COUNTERS or name == STALL:
            found[name] = float(value)
    return found


def history_bytes(node: NodeChild) -> int:
    """Pages of the history in use, in the file or in its log."""
    path = node.data / "history.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        (free,) = database.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * page_bytes)


async def end_to_end(cluster: LocalCluster, load: Load) -> Flow:
    """Submit, dispatch, run a no-op, complete. The cluster has its worker already."""
    leader = await cluster.leader()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await _pass_through(cluster, session, leader, replace(load, jobs=load.batch))  # warms up
        before = await by_status(cluster)
        meter = Meter(cluster, leader)
        await meter.start()
        started = time.perf_counter()
        posts = await _pass_through(cluster, session, leader, load)
        seconds = time.perf_counter() - started
        shares = await meter.stop()
    counts = await meter.counted()
    after = await by_status(cluster)
    once = counts["quorate_assigned_jobs"] == load.jobs  # none was given out twice
    done = after["completed"] - before["completed"] == load.jobs
    holds = once and done and after["pending"] == after["running"] == 0
    return Flow(
        load,
        seconds,
        shares,
        counts,
        posts,
        max(rss_bytes(node.pid) for node in cluster.nodes) >> 20,
        await meter.history_grew_bytes(),
        holds and await replicas_equal(cluster),
        await meter.longest_stall_ms(),
    )


async def submission(cluster: LocalCluster, load: Load) -> Flow:
    """Only the way in: nobody takes the jobs."""
    leader = await cluster.leader()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await post_batch(session, leader.url, load.body())
        before = await by_status(cluster)
        meter = Meter(cluster, leader)
        await meter.start()
        posting = Posting(session, leader.url, load, is_held_back=False)
        started = time.perf_counter()
        await posting.run()
        seconds = time.perf_counter() - started
        shares = await meter.stop()
    counts = await meter.counted()
    pending = (await by_status(cluster))["pending"] - before["pending"]
    holds = pending == load.jobs and await replicas_equal(cluster)
    memory_mb = max(rss_bytes(node.pid) for node in cluster.nodes) >> 20
    stall_ms = await meter.longest_stall_ms()
    return Flow(load, seconds, shares, counts, posting.took, memory_mb, 0, holds, stall_ms)


async def _pass_through(
    cluster: LocalCluster,
    session: aiohttp.ClientSession,
    leader: NodeChild,
    load: Load,
) -> Latencies:
    completed_before = (await by_status(cluster))["completed"]
    posting = Posting(session, leader.url, load, is_held_back=True)

    async def watch() -> None:
        while posting.done < load.jobs:
            stats = await cluster.get("/v1/stats", leader)
            posting.done = stats["jobs_by_status"]["completed"] - completed_before
            await asyncio.sleep(WATCH_S)

    async with asyncio.timeout(GIVE_UP_S):
        await asyncio.gather(watch(), posting.run())
    return posting.took


class Posting:
    """Clients that post one batch after the other, held back when they are too far ahead."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, load: Load, *, is_held_back: bool
    ) -> None:
        self._session = session
        self._url = url
        self._load = load
        self._body = load.body()
        self._sent = 0
        self.done = 0
        self._is_held_back = is_held_back
        self.took = Latencies()

    async def run(self) -> None:
        times_ms: list[float] = []
        await asyncio.gather(*(self._client(times_ms) for _ in range(self._load.clients)))
        for took_ms in times_ms:
            self.took.add_ms(took_ms)

    async def _client(self, times_ms: list[float]) -> None:
        load = self._load
        while self._sent < load.jobs:
            if self._is_held_back and self._sent - self.done > load.ahead_jobs:
                await asyncio.sleep(HELD_BACK_S)
                continue
            self._sent += load.batch
            started = time.perf_counter()
            await post_batch(self._session, self._url, self._body)
            times_ms.append((time.perf_counter() - started) * 1000)
