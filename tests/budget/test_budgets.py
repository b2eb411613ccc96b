"""Guards against slow decay: counts of what a job costs, against the table of `budget_table`."""

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from budget_rig import PAYLOAD_BYTES, FrameCounter, Rig, readings, three_nodes
from budget_table import COUNTS, MEMORY, STEPS, Budget, about
from steps import Steps

from bench.micro.__main__ import steps as micro_steps
from cluster.clock import SystemClock
from cluster.consensus import ConsensusConfig
from cluster.machine.commands import (
    AssignJobs,
    Batch,
    Command,
    CompleteJobs,
    JobGroup,
    RegisterWorker,
    SubmitJobs,
    encode_batch,
)
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.projections.metrics import Metrics
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import RaftState
from quorate.worker import runner

ROUND_JOBS = 1_000
ROUNDS = 5


def overruns(measured: dict[str, float], budgets: dict[str, Budget]) -> dict[str, str]:
    """What costs more than it may."""
    return {
        name: f"{value:,.1f}, budget {budget.limit:,.1f}, {budget.measured:,.1f} when it was set"
        for name, budget in budgets.items()
        if (value := measured[name]) > budget.limit
    }


def cheapest(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each count: heartbeats and timers only ever add."""
    return {name: min(each.get(name, 0) for each in rounds) for name in rounds[0]}


def counters(rig: Rig, frames: FrameCounter) -> dict[str, float]:
    leader, followers = rig.leader, rig.followers
    replication = cast(dict[str, Any], leader.raft.consensus.status())
    others = [cast(dict[str, Any], node.raft.consensus.status()) for node in followers]
    return {
        "entries": leader.proposer.batches_total,
        "commands": leader.proposer.commands_total,
        "entries sent": replication["entries_sent"] / 2,
        "fsyncs": replication["fsyncs"],
        "fsyncs of followers": sum(each["fsyncs"] for each in others) / 2,
        "frames to followers": replication["frames_out"] / 2,
        "frames to the worker": frames.frames["leader"],
        "frames of the worker": frames.frames["worker"],
        "bytes to followers": replication["bytes_out"] / 2,
        "journal bytes": replication["journal_bytes_written"],
        "bytes to the worker": frames.bytes["leader"],
        "bytes of the worker": frames.bytes["worker"],
    }


async def measure(folder: Path, frames: FrameCounter) -> dict[str, float]:
    counted = []
    async with three_nodes(folder) as rig:
        stored_before = rig.history_bytes()
        for _ in range(ROUNDS):
            with readings(lambda: counters(rig, frames)) as added:
                await rig.run(ROUND_JOBS)
            counted.append(added)
        stored = (rig.history_bytes() - stored_before) / ROUNDS
    return {**cheapest(counted), "history bytes": stored}


def test_a_job_costs_no_more_frames_and_bytes_than_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = asyncio.run(measure(tmp_path, FrameCounter(monkeypatch)))
    print(measured)
    assert overruns(measured, COUNTS) == {}, "per 1,000 jobs"


# Instructions ---------------------------------------------------------------------------------

PARTS = ("edge", "codec", "machine", "timers", "derived", "disk", "wire", "leader", "worker")


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="counts are those of Python 3.11")
@pytest.mark.parametrize("part", PARTS)
def test_a_step_takes_no_more_instructions_than_its_budget(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SWEEP_SECONDS", 3_600)  # it looks at the clock
    measured, where = {}, {}
    for _, step in micro_steps((part,), ROUND_JOBS, tmp_path):
        if step.waits:
            continue
        work, taken = step.prepare(), Steps()
        with taken.counting():
            work()
        name = f"{part}: {step.name}"
        measured[name], where[name] = taken.total / step.count, taken.dearest()
        print(f'    "{name}": about({measured[name]:.1f}),')
    budgets = {name: budget for name, budget in STEPS.items() if name.startswith(f"{part}:")}
    grown = overruns(measured, budgets)
    assert grown == {}, {name: where[name] for name in grown}
    forgotten = {name for name, steps in measured.items() if steps >= 1} - budgets.keys()
    assert forgotten == set(), "a step without a budget"


# Memory ---------------------------------------------------------------------------------------

BATCHES = 20
WORKER = WorkerSpec("w", 1_000_000, ("default",), ("work",))


class Replica:
    """State and projections as a node has them, fed with encoded entries."""

    def __init__(self) -> None:
        config = ConsensusConfig("a:1", "a:1", (), Path("/nowhere"))
        no_consensus = cast(Any, lambda *_: None)
        self.raft = RaftState(config, SystemClock(), "a", no_consensus)
        self.ready, self.metrics = ReadyQueues(), Metrics(lambda: self.raft.state, dict)
        self.raft.on_effects(lambda effects, _: self.ready.feed(effects))
        self.raft.on_effects(lambda effects, _: self.metrics.feed(effects))
        self._index = 1
        self._apply(RegisterWorker(WORKER))

    def _apply(self, command: Command) -> None:
        self._index += 1
        self.raft.apply(encode_batch(Batch(1, 1_000, [command])), self._index)

    def submit(self) -> None:
        for batch in range(BATCHES):
            payloads = [
                b"%0*d" % (PAYLOAD_BYTES, batch * ROUND_JOBS + n) for n in range(ROUND_JOBS)
            ]
            self._apply(SubmitJobs([JobGroup(JobSpec("work"), payloads)]))

    def assign(self) -> None:
        for ids in _batches():
            self._apply(AssignJobs(1, ids))

    def complete(self) -> None:
        for ids in _batches():
            self._apply(CompleteJobs(1, ids, [1] * len(ids)))


def _batches() -> Iterator[list[int]]:
    for batch in range(BATCHES):
        yield list(range(batch * ROUND_JOBS + 1, (batch + 1) * ROUND_JOBS + 1))


def _blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def test_a_job_holds_no_more_memory_than_its_budget() -> None:
    replica, jobs = Replica(), BATCHES * ROUND_JOBS
    blocks = [_blocks()]
    for move in (replica.submit, replica.assign, replica.complete):
        move()
        blocks.append(_blocks())
    tracemalloc.start()
    try:
        second = Replica()
        before = tracemalloc.get_traced_memory()[0]
        second.submit()
        pending = tracemalloc.get_traced_memory()[0] - before
        second.assign()
        running = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    measured = {
        "bytes per pending job": pending / jobs,
        "bytes per running job": running / jobs,
        "blocks per pending job": (blocks[1] - blocks[0]) / jobs,
        "blocks more per running job": (blocks[2] - blocks[1]) / jobs,
        "blocks left per finished job": (blocks[3] - blocks[0]) / jobs,
    }
    print({name: round(value, 2) for name, value in measured.items()})
    assert len(second.raft.state.tables.jobs) == jobs
    assert overruns(measured, MEMORY) == {}


# The guard itself -------------------------------------------------------------------------------


def test_what_grew_is_named() -> None:
    table = {"frames": about(100), "bytes": about(10)}
    assert overruns({"frames": 114, "bytes": 10}, table) == {}
    assert overruns({"frames": 125, "bytes": 10}, table) == {
        "frames": "125.0, budget 115.0, 100.0 when it was set"
    }


def test_budgets_are_tight() -> None:
    """A quarter more is noticed, wherever the clock has no say."""
    by_clock = {"frames to followers"}
    for table in (COUNTS, STEPS, MEMORY):
        for name, budget in table.items():
            slack = max(0.25 * budget.measured, 0.5)
            assert name in by_clock or budget.limit <= budget.measured + slack, name
