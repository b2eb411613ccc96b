"""One simulated history: a cluster, its workers and users, and everything that goes wrong.

The only source of chance is one seeded generator and the only clock is the loop's, so a seed is a
history. `trace` folds every event into a digest; two runs of a seed must agree in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from chaos.sim.checkers import (
    Agreement,
    Attempts,
    Cancellations,
    Checker,
    Histories,
    Invariants,
    Liveness,
    NotEarly,
    Punctual,
    SameDigests,
    Submissions,
)
from chaos.sim.client import SimClient
from chaos.sim.clock import TrueTime
from chaos.sim.ledger import Ledger
from chaos.sim.loop import StuckError, VirtualLoop
from chaos.sim.nemesis import Nemesis
from chaos.sim.node import NODE, SimNode
from chaos.sim.occurrences import Occurrences
from chaos.sim.operator import Operator, Reaper
from chaos.sim.rollout import Rollout
from chaos.sim.timetable import CALENDAR, LEAD_MS, Scene, few
from chaos.sim.worker import SimWorker
from cluster.actors.services import Assignment, NotLeader, OutcomeUnknown, Overloaded
from cluster.machine import blocks
from cluster.machine.apply import Strictness
from cluster.machine.effects import Effects
from cluster.machine.model import WorkerSpec

SETTLE_S = 240.0  # after the faults, everything must have ended within this
TRACE_KEPT = 4_000
LATE_REPORTS = 4
CLOCK_JUMP_MS = 10_000  # the guard's bound, in half of all histories
OFFERS = (
    (("default", "mail"), ("work", "send")),
    (("default",), ("work", "send")),
    (("*",), ("work",)),
    (("mail",), ("send",)),
)


@dataclass
class Report:
    """How a run ended."""

    seed: int
    failures: list[str]
    digest: str
    entries: int
    elections: int
    jobs: int
    virtual_s: float
    launched: int = 0  # occurrences of schedules
    recorded: int = 0  # and those that did not run
    releases: tuple[int, int] = (0, 0)  # changes of a node's release, refusals to go on with one
    tail: list[str] = field(default_factory=list)


class World:
    """Everything of one run. Parts call `fail` when something is wrong; the run then ends."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seed: int,
        nodes: int,
        echo: bool,
        stage: Callable[[Random], Scene],
        rolls: bool = False,
    ) -> None:
        self.loop = loop
        self.seed = seed
        self.rng = Random(seed)
        self.echo = echo
        # Idle clusters, busy ones and overloaded ones have different bugs.
        self.load = self.rng.choice((0.05, 1.0, 3.0, 3.0))  # requests per second and client
        self.slots_max = self.rng.choice((2, 8))
        self.scene = stage(self.rng)
        self.time = TrueTime(loop, self.scene.moment_ms - LEAD_MS)
        self.timetable = {entry.id: entry for entry in self.scene.entries}
        self.days: dict[str, frozenset[int]] = {CALENDAR: frozenset()}
        self.guard_ms = self.rng.choice((0, CLOCK_JUMP_MS))  # 0: clocks are followed blindly
        self.failures: list[str] = []
        self.node_ids = tuple(f"n{number}" for number in range(1, nodes + 1))
        self.ledger = Ledger(loop, self.rng, nodes)
        self.rollout = Rollout(self) if rolls else None  # where there are two releases
        self.nodes = {node_id: SimNode(self, node_id) for node_id in self.node_ids}
        self.workers: list[SimWorker] = []
        self.reaper: Reaper | None = None  # where there are no workers
        self.unreachable: set[str] = set()  # nodes that workers and clients cannot reach
        self.requests: dict[str, int] = {}
        self.acked: dict[str, list[int]] = {}
        self.acked_cancels: dict[int, None] = {}
        self.truly_done: dict[tuple[int, int], None] = {}
        self.peaceful = False
        self.front = 0  # the newest log entry that any node has applied
        self._started: dict[tuple[int, int], str] = {}
        self._hash = hashlib.blake2b(digest_size=16)
        self._tail: deque[str] = deque(maxlen=TRACE_KEPT)
        self._digests = SameDigests(self)
        self.occurrences = Occurrences(self)
        self._agreement = Agreement(self)
        self._punctual = Punctual(self)
        self.liveness = Liveness(self)
        self.checkers: list[Checker] = [
            Submissions(self), Attempts(self), Cancellations(self), NotEarly(self),
            self.occurrences, Invariants(self), Histories(self), self._digests, self._agreement,
            self._punctual, self.liveness,
        ]  # fmt: skip
        self._failed = loop.create_future()

    # -- what parts say --------------------------------------------------------------------------

    def trace(self, event: str) -> None:
        line = f"{self.loop.time():.6f} {event}"
        self._hash.update(line.encode())
        self._tail.append(line)
        if self.echo:
            print(line)

    def fail(self, reason: str) -> None:
        self.trace(f"FAILED {reason}")
        self.failures.append(reason)
        if not self._failed.done():
            self._failed.set_result(None)

    def observe(self, node: SimNode, effects: Effects, index: int) -> None:
        """A node applied an entry."""
        self._digests.applied(node, index)
        if index != self.front + 1:
            return
        self.front = index
        state = node.raft.state
        self.trace(f"entry {index} by {node.id} digest {state.digest:08x} now {state.now_ms}")
        if effects.schedules_due:
            self.nemesis.schedules_due(node)
        if self.reaper is not None:
            self.reaper.feed(effects)
        for job in effects.jobs_assigned:
            self.trace(f"  assigned to w{job.worker_id}: {job.id}.{job.attempt}")
        for finished in effects.jobs_finished:
            job = finished.job
            self.trace(f"  ended {job.id}.{job.attempt} {job.state} {finished.error_type}")
        for checker in self.checkers:
            checker.on_entry(node, effects, index)

    def restored(self, node: SimNode, index: int) -> None:
        self._digests.applied(node, index)

    def requested(self, key: str, count: int) -> None:
        self.requests[key] = count

    def acknowledged(self, key: str, ids: list[int]) -> None:
        self.acked[key] = ids

    def cancelled(self, job_id: int) -> None:
        self.acked_cancels[job_id] = None

    def waited(self, node: SimNode, job_id: int) -> None:
        """A waiter was told that the job is over: on that node it must not be live."""
        self.trace(f"waited for {job_id} at {node.id}")

    def backfilled(self, schedule_id: str, backfill_id: int, nominals: list[int]) -> None:
        """An operator was told that these will run."""
        self.occurrences.backfills[schedule_id, backfill_id] = nominals

    def started(self, worker: SimWorker, job: Assignment) -> None:
        """A worker began an attempt; nobody may begin the same one again."""
        key = (job.job_id, job.attempt)
        self.trace(f"  {worker.name} starts {key}")
        before = self._started.setdefault(key, worker.name)
        if before != worker.name:
            self.fail(f"attempt {key} was started by {before} and by {worker.name}")

    def produced(self, key: tuple[int, int], outcome: str) -> None:
        self.truly_done[key] = None

    # -- what parts ask --------------------------------------------------------------------------

    def wire_s(self) -> float:
        """How long a message between machines takes."""
        slow = self.rng.random() < 0.02 and not self.peaceful
        return self.rng.uniform(0.05, 0.4) if slow else self.rng.uniform(0.0002, 0.003)

    def reachable(self, node: SimNode) -> bool:
        return node.id not in self.unreachable

    def leader(self) -> SimNode | None:
        """The node that the quorum follows, if it is ready."""
        for node in self.nodes.values():
            leads = node.alive and self.ledger.leader is node.consensus
            if leads and node.raft.is_leader:
                return node
        return None

    def true_now_ms(self) -> int:
        return self.time.now_ms()

    def latest_now_ms(self) -> int:
        """Replicated time as far as any node knows, and the true time if that is later."""
        known = [node.raft.state.now_ms for node in self.nodes.values() if node.incarnation]
        return max(self.true_now_ms(), *known)

    def any_worker(self) -> SimWorker | None:
        living = [worker for worker in self.workers if worker.alive]
        return self.rng.choice(living) if living else None

    def plan_run(self, job: Assignment) -> str:
        """What becomes of an attempt."""
        if self.peaceful:
            return "done"
        outcomes = ("done", "fail", "fatal", "hang", "release")
        return self.rng.choices(outcomes, (80, 10, 2, 4, 4))[0]

    async def quietly(self, work: Awaitable[Any]) -> None:
        """For operators who do not insist."""
        try:
            await work
        except (NotLeader, OutcomeUnknown, Overloaded):
            self.trace("an operator's request failed")

    # -- the cast --------------------------------------------------------------------------------

    def add_worker(self) -> None:
        self.workers = [worker for worker in self.workers if worker.alive]
        number = len(self._names) + 1
        self._names.append(f"worker{number}")
        queues, tasks = OFFERS[(number - 1) % len(OFFERS)]
        spec = WorkerSpec(self._names[-1], self.rng.randint(1, self.slots_max), queues, tasks)
        self.workers.append(SimWorker(self, spec.name, spec))

    def worker_left(self, worker: SimWorker) -> None:
        self.trace(f"{worker.name} left")

    async def run(self, minutes: float, clients: int) -> None:
        """Live through `minutes` of faults, then through peace until everything has ended."""
        self._names: list[str] = []
        for node in self.nodes.values():
            node.start()
        operator = Operator(self, self.rng.choice((0.0, 0.2, 1.0)))
        users: list[SimClient] = [operator]
        if self.scene.manned:
            for _ in range(len(OFFERS)):
                self.add_worker()
            users += [SimClient(self, f"c{number}") for number in range(clients)]
        else:
            self.reaper = Reaper(self)
        self.nemesis = nemesis = Nemesis(self)
        if self.rollout is not None:
            self.rollout.begin()
        watch = self.loop.create_task(self._watch(), name="watch")
        await asyncio.sleep(minutes * 60)
        self.peaceful = True
        self.trace("peace")
        if self.rollout is not None:
            self.rollout.finish()
        nemesis.mend()
        for user in users:
            user.stopped = True
        await asyncio.gather(*(user.task for user in users), nemesis.task)
        if self.scene.manned:
            self.staff()
        if self.rollout is not None:
            await self.rollout.raised()
        await self._settle(("live jobs",))
        if (leader := self.leader()) is not None:
            self.occurrences.before_deletion(leader)
        await operator.delete_all()
        await self._settle(())
        await self._settle(())  # half a second later: histories write a little later
        watch.cancel()
        for checker in self.checkers:
            checker.at_end()

    def staff(self) -> None:
        """At the end every queue and task is served by somebody."""
        self.workers = [worker for worker in self.workers if worker.alive and not worker.draining]
        queues, tasks = OFFERS[0]
        if not any((w.spec.queues, w.spec.tasks) == (queues, tasks) for w in self.workers):
            self._names.append("steward")
            self.workers.append(SimWorker(self, "steward", WorkerSpec("steward", 8, queues, tasks)))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._agreement.look()
            self._punctual.look()

    def haunt(self, worker: SimWorker) -> None:
        """The process is gone, but what it had started reports by itself later, as attempts of
        workers that speak plain HTTP do: to any leader, without a connection."""
        for job_id, attempt in worker.running:
            for _ in range(LATE_REPORTS):
                delay_s = self.rng.uniform(0.1, 6.0)
                self.loop.call_later(delay_s, self._report_late, job_id, attempt)

    def _report_late(self, job_id: int, attempt: int) -> None:
        leader = self.leader()
        if leader is not None:
            output = b"%d.%d" % (job_id, attempt)
            self.produced((job_id, attempt), "done")
            work = leader.desk.complete(0, [job_id], [attempt], [output], None)
            leader.spawn(self.quietly(work))

    async def _settle(self, ignored: tuple[str, ...]) -> None:
        deadline_s = self.loop.time() + SETTLE_S
        while self.loop.time() < deadline_s:
            await asyncio.sleep(0.5)
            if not any(p for p in self.liveness.unsettled() if not p.startswith(ignored)):
                return

    async def run_or_fail(self, minutes: float, clients: int) -> None:
        """Ends at the first failure."""
        story = self.loop.create_task(self.run(minutes, clients), name="story")
        await asyncio.wait([story, self._failed], return_when=asyncio.FIRST_COMPLETED)
        if story.done() and not story.cancelled() and story.exception() is not None:
            self.fail(f"the run itself failed: {story.exception()!r}")

    def report(self) -> Report:
        submitted, rollout = len(self.acked), self.rollout
        return Report(
            self.seed, self.failures, self._hash.hexdigest(), len(self.ledger.entries),
            self.ledger.elections, submitted, self.loop.time(), *self.occurrences.totals(),
            (rollout.changes, rollout.refusals) if rollout is not None else (0, 0),
            list(self._tail),
        )  # fmt: skip


class _LoudLog(logging.Handler):
    """Whatever the product logs as an error fails the run: nothing may be swallowed."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._world.fail(f"logged: {record.getMessage()} {error!r}")


def run_seed(
    seed: int,
    minutes: float = 2.0,
    nodes: int = 3,
    clients: int = 3,
    echo: bool = False,
    stage: Callable[[Random], Scene] = few,
    rolls: bool = False,
) -> Report:
    """Live through one history. The report lists what went wrong; empty is good."""
    product = logging.getLogger("quorate")
    loop = VirtualLoop()
    world = World(loop, seed, nodes, echo, stage, rolls)
    handler = _LoudLog(world)
    before = Strictness.raise_bugs, product.propagate, product.level, blocks.BLOCK_JOBS_MIN
    Strictness.raise_bugs, product.propagate = True, False
    blocks.BLOCK_JOBS_MIN = 2  # submissions are small here
    product.setLevel(logging.DEBUG if echo else logging.ERROR)
    product.addHandler(handler)
    loop.set_task_factory(_owned_task)
    loop.set_exception_handler(
        lambda _, context: world.fail(f"loop: {context['message']} {context.get('exception')!r}")
    )
    try:
        loop.run_until_complete(world.run_or_fail(minutes, clients))
    except Exception as error:
        world.fail(f"the loop failed: {error!r}")
    finally:
        product.removeHandler(handler)
        Strictness.raise_bugs, product.propagate = before[:2]
        product.setLevel(before[2])
        blocks.BLOCK_JOBS_MIN = before[3]
        report = world.report()
        _close(loop)
    return report


def _owned_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    """Tasks that a node starts are the node's, so that a crash ends them."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    node = context.get(NODE) if context is not None else NODE.get()
    if node is not None:
        node.adopt(task)
    return task


def _close(loop: VirtualLoop) -> None:
    loop.set_exception_handler(lambda *_: None)
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(StuckError):
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
    gc.collect()
