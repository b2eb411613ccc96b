"""P8: what an operation costs while millions wait, against ten thousand: CPU time, in one process.

Two replicas, a small and a large one, take turns, so that a busy machine slows both. Each round
leaves as many jobs as it found.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.harness import Result, Scale
from cluster.machine import views
from cluster.machine.apply import apply
from cluster.machine.commands import (
    AssignJobs,
    Batch,
    CancelJobs,
    Command,
    CompleteJobs,
    JobGroup,
    RegisterWorker,
    SubmitJobs,
    decode_batch,
    encode_batch,
)
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.results import Settled, Submitted
from cluster.machine.state import State
from cluster.machine.views import JobFilter
from cluster.projections.ready import ReadyQueues

SMALL = 10_000
BATCH, HANDFUL = 1_000, 100
ROUNDS = 40
SPEC, IDLE = JobSpec("noop"), JobSpec("idle")
PAYLOAD = b"x" * 100
NEWEST, FAILED = JobFilter(), JobFilter(status="failed")


class Replica:
    """A state and its ready queues; every operation is one log entry, decoded and booked."""

    def __init__(self, pending: int) -> None:
        self.state, self.ready = State(), ReadyQueues()
        self.rng = random.Random(1)
        self.book(RegisterWorker(WorkerSpec("host", 1, ("default",), ("noop",))))
        # Half of the small one's jobs are never assigned, in the large one as many, spread evenly:
        # those that are cancelled do not make the assignment's runs shorter.
        self.idle: list[int] = []
        batches, every = pending // BATCH, 2 * pending // SMALL
        for number in range(batches):
            if number % every == 0:
                self.submit_idle(BATCH)
            else:
                self.submit(BATCH)

    def book(self, command: Command) -> object:
        now_ms = self.state.now_ms + 1
        batch = decode_batch(encode_batch(Batch(1, now_ms, [command])))
        results, effects = apply(self.state, batch)
        self.ready.feed(effects)
        return results[0]

    def submit(self, count: int, spec: JobSpec = SPEC) -> int:
        result = self.book(SubmitJobs([JobGroup(spec, [PAYLOAD] * count)]))
        assert isinstance(result, Submitted)
        return result.first

    def submit_idle(self, count: int) -> None:
        first = self.submit(count, IDLE)
        self.idle += range(first, first + count)

    def assign(self) -> list[int]:
        jobs = self.ready.take(self.ready.lanes_of(("default",), ("noop",)), HANDFUL)
        ids = [job.id for job in jobs]
        assert self.book(AssignJobs(1, ids)) == Settled([])
        return ids

    def anywhere(self) -> list[int]:
        """Some of those that only wait; they are cancelled."""
        self.rng.shuffle(self.idle)
        chosen = sorted(self.idle[-HANDFUL:])
        del self.idle[-HANDFUL:]
        return chosen

    def operations(self) -> Iterator[tuple[str, int, Callable[[], object]]]:
        """Name, how many at once, and what to time. Later ones use what earlier ones left."""
        state, ids, chosen = self.state, list[int](), self.anywhere()
        yield "submit", BATCH, lambda: self.submit(BATCH)
        yield "submit one", 1, lambda: self.submit(1)
        yield "assign", HANDFUL, lambda: ids.extend(self.assign())
        yield "complete", HANDFUL, lambda: self.book(CompleteJobs(1, ids, [1] * len(ids)))
        yield "get", HANDFUL, lambda: [views.job(state, job_id) for job_id in chosen]
        yield "list, newest", 1, lambda: views.jobs(state, NEWEST, 0, 50)
        yield "list, from the middle", 1, lambda: views.jobs(state, NEWEST, chosen[50], 50)
        yield "list, none matches", 1, lambda: views.jobs(state, FAILED, 0, 50)
        yield "cancel", HANDFUL, lambda: self.book(CancelJobs(chosen))

    def drain(self, pending: int) -> None:
        """Back to `pending` jobs."""
        self.submit_idle(HANDFUL)
        while (extra := len(self.state.tables.jobs) - pending) >= HANDFUL:
            for _ in range(extra // HANDFUL):
                ids = self.assign()
                self.book(CompleteJobs(1, ids, [1] * len(ids)))


def timed(replica: Replica, costs: dict[str, list[float]]) -> None:
    for name, count, work in replica.operations():
        started = time.process_time()
        work()
        costs.setdefault(name, []).append((time.process_time() - started) / count * 1e6)


async def measure(scale: Scale, folder: Path) -> list[Result]:
    sizes = {SMALL: Replica(SMALL), scale.pending: Replica(scale.pending)}
    costs: dict[int, dict[str, list[float]]] = {size: {} for size in sizes}
    gc.collect()
    gc.freeze()
    for turn in range(ROUNDS + 1):
        for size, replica in sizes.items():
            timed(replica, costs[size] if turn else {})
            replica.drain(size)
    holds = all(0 <= len(r.state.tables.jobs) - size < HANDFUL for size, r in sizes.items())
    figures, worst = {}, 0.0
    for name in costs[SMALL]:
        small, large = (statistics.median(costs[size][name]) for size in sizes)
        figures[name] = f"{small:.2f} -> {large:.2f} us"
        worst = max(worst, large / small)
    figures = {"worst ratio": f"{worst:.2f}", **figures}
    what = f"cost per operation at {SMALL:,} and at {scale.pending:,} pending"
    return [Result("P8", what, figures, "<= 1.3 x", holds)]
