"""How long a node's loop stands still for a snapshot of a large state: taken, loaded, installed.

`python -m bench.stalls --jobs 1000000`: one process, a loop that looks at the clock every
millisecond, and the product's own child, files and machine. The digest after the way through the
file must be the digest before it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.clock import SystemClock
from cluster.consensus import ConsensusConfig
from cluster.consensus.child import ForkedChild
from cluster.consensus.members import first_members
from cluster.consensus.snapfile import write_content
from cluster.consensus.snapstore import SnapshotStore
from cluster.consensus.storage import FILES, BufferedWriter
from cluster.machine.commands import Batch, JobGroup, SubmitJobs, encode_batch
from cluster.machine.model import JobSpec
from cluster.main import GC_THRESHOLDS
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import RaftState

CLUSTER = b"b" * 16
GROUP = 1000


@dataclass
class Gap:
    """The longest time between two looks at the clock, in ms."""

    longest_ms: float = 0.0
    took_s: float = 0.0


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Gap]:
    gap = Gap()

    async def look() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            at = time.perf_counter()
            gap.longest_ms = max(gap.longest_ms, (at - last) * 1000)
            last = at

    task = asyncio.create_task(look())
    await asyncio.sleep(0.05)
    gap.longest_ms, started = 0.0, time.perf_counter()
    yield gap
    gap.took_s = time.perf_counter() - started
    await asyncio.sleep(0.05)
    task.cancel()


def node() -> RaftState:
    config = ConsensusConfig("a:1", "a:1", (), Path("/nowhere"))
    raft = RaftState(config, SystemClock(), "http://a", lambda *_: None)  # type: ignore[arg-type,return-value]
    ready = ReadyQueues()
    raft.before_restored(ready.prepare)
    raft.on_effects(lambda effects, index: ready.feed(effects))
    return raft


def fill(raft: RaftState, jobs: int) -> None:
    batch = Batch(0, 1, [SubmitJobs([JobGroup(JobSpec("noop"), [b"x" * 100] * GROUP)])])
    entry = encode_batch(batch)
    for index in range(jobs // GROUP):
        raft.apply(entry, index + 2)


async def take(raft: RaftState, store: SnapshotStore) -> Gap:
    path = store.folder / "taking.tmp"

    def write(is_wanted: Callable[[], bool]) -> None:
        with contextlib.closing(BufferedWriter(FILES, path)) as file:
            write_content(
                file,
                cluster=CLUSTER,
                index=7,
                term=1,
                members=first_members(("a:1",)),
                chunks=raft.snapshot(),
                keep_going=is_wanted,
            )
            file.finish()

    async with watched() as gap:
        await ForkedChild().run(write)
    store.publish(path, 7, 1)
    return gap


async def load_on_the_loop(store: SnapshotStore) -> tuple[Gap, RaftState]:
    raft = node()
    async with watched() as gap:
        raft.restore(store.read(store.all()[0]))
        await asyncio.sleep(0.01)
    return gap, raft


async def load_aside(store: SnapshotStore) -> tuple[Gap, RaftState]:
    raft = node()
    fill(raft, 10_000)  # something to replace
    async with watched() as gap:
        adopt = await asyncio.to_thread(raft.load, store.read(store.all()[0]))
        await asyncio.to_thread(adopt())
        await asyncio.sleep(0.01)
    return gap, raft


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    jobs = parser.parse_args().jobs
    gc.set_threshold(*GC_THRESHOLDS)
    with tempfile.TemporaryDirectory() as folder:
        store = SnapshotStore(FILES, Path(folder), CLUSTER)
        raft = node()
        fill(raft, jobs)
        digest = raft.state.digest
        rows = {"taken by a forked child": await take(raft, store)}
        del raft
        gc.collect()
        rows["loaded on the loop"], loaded = await load_on_the_loop(store)
        assert loaded.state.digest == digest
        del loaded
        gc.collect()
        if hasattr(RaftState, "load"):
            rows["loaded aside, then adopted"], loaded = await load_aside(store)
            assert loaded.state.digest == digest
            assert len(loaded.state.tables.jobs) == jobs
    print(f"| {jobs:,} jobs | longest stall of the loop | whole |\n|---|---|---|")
    for name, gap in rows.items():
        print(f"| {name} | {gap.longest_ms:.1f} ms | {gap.took_s:.2f} s |")


if __name__ == "__main__":
    asyncio.run(main())
