"""A leader and its workers in one process, in virtual time: what the leader spends on them.

Real: the machine, `RaftState`, proposer, desk, dispatcher, detector, timekeeper, archivist, ready
queues, metrics, live board, waiters, and the frames of the worker stream in both directions. Not
there: sockets, disks, followers and the history's thread. The log commits everything `COMMIT_S`
after it was proposed. Time jumps to the next timer, so CPU seconds per virtual second is the load.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from array import array
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from chaos.sim.clock import SimClock
from chaos.sim.loop import VirtualLoop
from cluster.actors.archivist import Archivist
from cluster.actors.assigned import Assigned
from cluster.actors.desk import WorkerDesk
from cluster.actors.detector import Detector
from cluster.actors.dispatcher import Dispatcher
from cluster.actors.live import LiveBoard
from cluster.actors.proposer import Proposer
from cluster.actors.services import Assignment
from cluster.actors.supervisor import Supervisor
from cluster.actors.timekeeper import Timekeeper
from cluster.actors.waiters import Waiters
from cluster.api import frames
from cluster.api.booking import Booking
from cluster.consensus import ConsensusConfig, Outcome, ProposalCallback, Role
from cluster.machine.commands import JobGroup, SubmitJobs
from cluster.machine.levels import HIGHEST_LEVEL
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.projections.metrics import Metrics
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import RaftState
from quorate.worker.frames import encode

COMMIT_S = 0.002
TTL_MS, GRACE_MS = 10_000, 2_000
BEAT_MS = TTL_MS // 3
TICK_MS = 10
SLOTS = 10
SPEC = WorkerSpec("w", SLOTS, ("default",), ("work",), ttl_ms=TTL_MS)
JOB = JobSpec("work", timeout_ms=600_000)
PAYLOAD = b'"' + b"x" * 98 + b'"'
OUTPUT_BYTES_MAX = 1 << 20
HEARTBEAT = encode(("heartbeat",))

Held = tuple["Worker", int, int]  # who runs which job in which attempt


class MeasuringLoop(VirtualLoop):
    """Keeps the CPU time of its longest turn: so long would a message wait that comes with it."""

    longest_s = 0.0

    def _run_once(self) -> None:
        began = time.thread_time()
        super()._run_once()  # type: ignore[misc]
        self.longest_s = max(self.longest_s, time.thread_time() - began)


class Log:
    """Consensus of one member, without a disk."""

    def __init__(self, config: ConsensusConfig, machine: RaftState, on_role: Any) -> None:
        self._machine = machine
        self._on_role = on_role
        self._pending: deque[tuple[bytes, ProposalCallback]] = deque()
        self.role, self.term, self.leader_id = Role.FOLLOWER, 0, cast(str | None, None)
        self.applied_index = self.commit_index = 0
        self.bytes_total = 0

    def become(self, role: Role) -> None:
        self.role = role
        self.term += role is Role.LEADER
        self._on_role(role, self.term, None)

    def propose(self, entry: bytes, callback: ProposalCallback) -> None:
        self._pending.append((entry, callback))
        self.bytes_total += len(entry)
        asyncio.get_running_loop().call_later(COMMIT_S, self._commit)

    def _commit(self) -> None:
        entry, callback = self._pending.popleft()
        self.applied_index = self.commit_index = self.applied_index + 1
        callback(Outcome.APPLIED, self._machine.apply(entry, self.applied_index))

    def peers(self) -> list[Any]:
        return []


class Forgetful:
    """The history, as far as the loop has to do with it."""

    def add(self, index: int, jobs: Sequence[object]) -> None:
        pass

    async def flushed(self, index: int) -> None:
        pass


class Worker:
    """Takes jobs as the worker stream would: what is sent is encoded and counted."""

    __slots__ = ("_inbox", "booking", "id", "is_silent", "place", "running", "sent_bytes")

    booking: Booking

    def __init__(self, inbox: list[tuple[Worker, list[Assignment]]], place: int) -> None:
        self.id = 0
        self.place = place
        self.running = 0
        self.sent_bytes = 0
        self.is_silent = False
        self._inbox = inbox

    def send_jobs(self, jobs: Assigned) -> None:
        rows = jobs.rows()
        self.sent_bytes += len(frames.jobs(rows))
        self._inbox.append((self, rows))

    def send_cancel(self, attempts: list[tuple[int, int]]) -> None:
        self.sent_bytes += len(frames.cancel(attempts))

    def send_stop(self, attempts: list[tuple[int, int]]) -> None:
        self.sent_bytes += len(frames.stop(attempts))

    def put(self, frame: bytes) -> None:
        self.sent_bytes += len(frame)

    def send_drain(self) -> None:
        pass

    def close_moved(self, leader_http: str | None) -> None:
        self.sent_bytes += len(frames.moved(leader_http))


def _refused(error: Exception) -> None:
    raise error


class Collections:
    """The collector's pauses, in CPU time of this thread, by generation."""

    def __init__(self) -> None:
        self.longest_s = [0.0, 0.0, 0.0]
        self.count = [0, 0, 0]
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
            return
        generation, took_s = info["generation"], time.thread_time() - self._began
        self.longest_s[generation] = max(self.longest_s[generation], took_s)
        self.count[generation] += 1

    @contextmanager
    def watched(self) -> Iterator[Collections]:
        gc.callbacks.append(self)
        try:
            yield self
        finally:
            gc.callbacks.remove(self)


class Fleet:
    """The leader, its workers, and the clockwork that lets them speak. `aside_s` is the CPU time
    that was spent on the workers' side of it."""

    def __init__(self, jobs_last_ms: int, seed: int = 1) -> None:
        self.clock = SimClock(asyncio.get_running_loop())
        config = ConsensusConfig("me", "me", (), Path("/nowhere"))
        self.raft = RaftState(
            config, self.clock, "me", cast(Any, self._make_log), level=HIGHEST_LEVEL
        )
        self.ready = ReadyQueues()
        self.raft.on_effects(lambda effects, _: self.ready.feed(effects))
        self.metrics = Metrics(lambda: self.raft.state, dict)
        self.raft.on_effects(lambda effects, _: self.metrics.feed(effects))
        Archivist(self.raft, cast(Any, Forgetful()))
        self.proposer = Proposer(self.raft)
        self.waiters = Waiters(self.raft)
        self.desk = WorkerDesk(
            self.raft, self.proposer, self.clock, LiveBoard(self.raft), GRACE_MS
        )  # fmt: skip
        self.dispatcher = Dispatcher(self.raft, self.proposer, self.desk, self.ready)
        self.detector = Detector(self.raft, self.proposer, self.desk, self.clock, TTL_MS)
        self.timekeeper = Timekeeper(self.raft, self.proposer, self.clock)
        self.duties = Supervisor([self.timekeeper, self.dispatcher, self.detector], print)
        self.workers: list[Worker] = []
        self.aside_s = 0.0
        self.jobs_last_ms = jobs_last_ms
        self._rng = random.Random(seed)
        self._inbox: list[tuple[Worker, list[Assignment]]] = []
        # Numbers only, as objects would be the collector's to look at: places in `workers`, job
        # ids and attempts, by the moment at which they end.
        self._ends: dict[int, array[int]] = defaultdict(lambda: array("q"))
        self._looked_at = 0  # slots of `_ends`
        self._tasks: set[asyncio.Task[None]] = set()

    def _make_log(self, config: ConsensusConfig, machine: RaftState, on_role: Any) -> Log:
        self.log = Log(config, machine, on_role)
        return self.log

    # -- the leader ------------------------------------------------------------------------------

    async def lead(self) -> None:
        self.log.become(Role.LEADER)
        await asyncio.sleep(2 * COMMIT_S)
        assert self.raft.is_leader
        self.duties.start()
        await asyncio.sleep(0)

    async def resign(self) -> None:
        self.log.become(Role.FOLLOWER)
        await self.duties.stopped()

    @property
    def running(self) -> int:
        return sum(queue.running for queue in self.raft.state.tables.queues.values())

    async def submit(self, count: int) -> None:
        await self.proposer.propose(SubmitJobs([JobGroup(JOB, [PAYLOAD] * count)]))

    def booked(self, submitted: int, completed: int) -> bool:
        """Whether the machine counts what was asked for, and nobody holds more than there is."""
        totals, running = self.raft.state.totals, self.running
        at_workers = sum(worker.running for worker in self.workers)
        waiting = sum(queue.ready for queue in self.raft.state.tables.queues.values())
        return (
            (totals.submitted, totals.completed) == (submitted, completed)
            and running + waiting == submitted - completed
            and running == at_workers + sum(len(jobs) for _, jobs in self._inbox)
        )

    # -- what workers do -------------------------------------------------------------------------

    async def register(self, count: int) -> None:
        """`count` more workers, who do not ask for jobs yet."""
        places = range(len(self.workers), len(self.workers) + count)
        fresh = [Worker(self._inbox, place) for place in places]

        async def one(worker: Worker) -> None:
            worker.id, _ = await self.desk.register(SPEC, worker.id, [], worker)
            worker.booking = Booking(self.desk, worker.id, OUTPUT_BYTES_MAX, worker.put, _refused)

        await asyncio.gather(*(one(worker) for worker in fresh))
        self.workers += fresh

    async def return_all(self, workers: Sequence[Worker]) -> None:
        """Registered workers have found this leader and tell what they run."""

        async def one(worker: Worker) -> None:
            held = list(self.desk.held(worker.id).items())
            await self.desk.register(SPEC, worker.id, held, worker)
            self.desk.grant(worker.id, SLOTS - len(held))

        await asyncio.gather(*(one(worker) for worker in workers))

    def take_in(self, spread: bool = False) -> int:
        """Workers begin what they were sent; `spread`: as if some had begun long ago."""
        began, last_ms = time.thread_time(), self.jobs_last_ms
        now_ms, count = self.clock.monotonic_ms(), 0
        for worker, jobs in self._inbox:
            worker.running += len(jobs)
            for job in jobs:
                last = self._rng.random() if spread else 0.5 + self._rng.random()
                end = (now_ms + int(last * last_ms)) // TICK_MS + 1
                self._ends[end].extend((worker.place, job.job_id, job.attempt))
                count += 1
        self._inbox.clear()
        self.aside_s += time.thread_time() - began
        return count

    def beat(self, workers: Sequence[Worker]) -> None:
        """Heartbeats, as they come off the sockets."""
        seen, decode = self.desk.seen, frames.decode
        for worker in workers:
            frame = decode(HEARTBEAT)
            seen(worker.id)
            assert frame is not None

    def _ended(self) -> list[Held]:
        """The jobs that have ended since this was asked last."""
        began, now = time.thread_time(), self.clock.monotonic_ms() // TICK_MS
        slots = [self._ends.pop(slot, None) for slot in range(self._looked_at + 1, now + 1)]
        ended = [held for slot in slots if slot for held in self._held(slot)]
        ended = [held for held in ended if not held[0].is_silent]
        self._looked_at = now
        self.aside_s += time.thread_time() - began
        return ended

    def _held(self, slot: array[int]) -> Iterator[Held]:
        for place, job_id, attempt in zip(slot[0::3], slot[1::3], slot[2::3], strict=True):
            yield self.workers[place], job_id, attempt

    def finish(self, held: Sequence[Held]) -> None:
        """Each of these jobs is done, and its worker says so in a frame of its own."""
        began = time.thread_time()
        told = [
            (worker, encode(("done", 1, [(job_id, attempt, None, None)], 1)))
            for worker, job_id, attempt in held
        ]
        self.aside_s += time.thread_time() - began
        desk = self.desk
        for worker, data in told:  # what a connection does with a frame of results
            frame = frames.decode(data)
            assert isinstance(frame, frames.Done)
            desk.seen(worker.id)
            desk.grant(worker.id, frame.credit)
            worker.booking.add(frames.Completed.of(frame))
        for worker, _, _ in held:
            worker.running -= 1

    async def settled(self) -> None:
        """All that was said is booked."""
        while (  # noqa: ASYNC110  (virtual time)
            self._tasks or any(worker.booking.items for worker in self.workers)
        ):
            await asyncio.sleep(COMMIT_S)

    def ending(self, count: int) -> list[Held]:
        """Take jobs out of the workers' hands that would go on for long."""
        taken: list[Held] = []
        for end in sorted(self._ends, reverse=True):
            slot = self._ends[end]
            left = max(len(slot) - 3 * (count - len(taken)), 0)
            taken += self._held(slot[left:])
            del slot[left:]
        return taken

    # -- time ------------------------------------------------------------------------------------

    async def live(self, seconds: float, jobs_per_s: int = 0) -> dict[str, int]:
        """Time passes: workers that are not silent speak every third of the TTL, jobs end when they
        end, new ones are submitted. Returns what was done."""
        ticks = round(seconds * 1000 / TICK_MS)
        groups = BEAT_MS // TICK_MS
        vocal = [worker for worker in self.workers if not worker.is_silent]
        speaking = [vocal[n::groups] for n in range(groups)]
        done = {"heartbeats": 0, "completions": 0, "submissions": 0}
        for tick in range(ticks):
            self.take_in()
            self.beat(speaking[tick % groups])
            done["heartbeats"] += len(speaking[tick % groups])
            ended = self._ended()
            self.finish(ended)
            done["completions"] += len(ended)
            if jobs_per_s:
                count = jobs_per_s * TICK_MS // 1000
                task = asyncio.create_task(self.submit(count))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                done["submissions"] += count
            await asyncio.sleep(TICK_MS / 1000)
        return done
