"""What must be true, one class for each; each sees every log entry once, in order.

A checker keeps a model of its own, far simpler than the machine, and is told of each entry's
effects by whichever node applies that entry first.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from cluster.machine import invariants, lifecycle
from cluster.machine.effects import Effects, ready_rows
from cluster.machine.tables import Job

if TYPE_CHECKING:
    from chaos.sim.node import SimNode
    from chaos.sim.worker import SimWorker
    from chaos.sim.world import World
    from cluster.machine.state import State

INVARIANTS_EVERY = 200  # log entries
LATE_MS = 2_000
DISAGREEMENT_S = 4.0


class Checker(Protocol):
    def on_entry(self, node: SimNode, effects: Effects, index: int) -> None: ...
    def at_end(self) -> None: ...


class Submissions:
    """Every acknowledged submission exists exactly once and ends exactly once; a request key never
    creates anything twice."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._by_payload: dict[bytes, int] = {}
        self._ended: dict[int, str] = {}
        self._seen: dict[int, None] = {}

    def on_entry(self, node: SimNode, effects: Effects, index: int) -> None:
        # In the order of a life: a job that is revived in the entry of its death is seen below.
        for job in ready_rows(effects):
            self._see(job)
            if not lifecycle.is_finished(job.state):
                self._require_mortal(job, self._ended.pop(job.id, ""))
        for finished in effects.jobs_finished:
            self._see(finished.job)
            job = finished.job
            self._require_mortal(job, self._ended.get(job.id, ""))
            if job.id not in node.raft.state.tables.jobs:
                self._ended[job.id] = lifecycle.STATUS[job.state]

    def _require_mortal(self, job: Job, ended: str) -> None:
        """Only a failed job can live, and end, again: a client may have revived it."""
        if ended not in ("", "failed"):
            self._world.fail(f"job {job.id} lives or ends again after it was {ended}")

    def _see(self, job: Job) -> None:
        if job.extra is not None and job.extra.schedule_id:
            return
        first = self._by_payload.setdefault(job.payload, job.id)
        if first != job.id:
            self._world.fail(f"{job.payload!r} was created twice: jobs {first} and {job.id}")
        self._seen[job.id] = None

    def at_end(self) -> None:
        for key, ids in self._world.acked.items():
            for job_id in ids:
                if job_id and job_id not in self._ended:
                    self._world.fail(f"job {job_id}, acknowledged as {key}, never ended")
        for payload in self._by_payload:
            key = payload.split(b"/")[0].decode()
            if key not in self._world.requests:
                self._world.fail(f"{payload!r} was never requested")


class Attempts:
    """One live attempt of a job at a time, numbered one by one; only its holder's own result ends
    it as completed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._attempt: dict[int, int] = {}

    def on_entry(self, node: SimNode, effects: Effects, index: int) -> None:
        for job in effects.jobs_assigned:
            # A row shows its last attempt; one entry assigns a job once.
            before = self._attempt.get(job.id, 0)
            if job.attempt != before + 1:
                self._world.fail(f"job {job.id}: attempt {job.attempt} after {before}")
            self._attempt[job.id] = job.attempt
        for finished in effects.jobs_finished:
            job = finished.job
            if job.state != lifecycle.COMPLETED:
                continue
            key = (job.id, job.attempt)
            if job.attempt != self._attempt.get(job.id):
                self._world.fail(f"job {job.id} completed by attempt {job.attempt}, not the newest")
            if finished.output != b"%d.%d" % key or key not in self._world.truly_done:
                self._world.fail(f"job {job.id} completed with another attempt's result")

    def at_end(self) -> None:
        return


class Cancellations:
    """What was acknowledged as cancelled never ends in another way."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._status: dict[int, int] = {}

    def on_entry(self, node: SimNode, effects: Effects, index: int) -> None:
        for finished in effects.jobs_finished:
            job = finished.job
            if self._status.get(job.id) == lifecycle.CANCELLED:
                self._world.fail(f"job {job.id} ended as {job.state} after it was cancelled")
            self._status[job.id] = job.state

    def at_end(self) -> None:
        for job_id in self._world.acked_cancels:
            if self._status.get(job_id) != lifecycle.CANCELLED:
                self._world.fail(
                    f"job {job_id}: cancelled for a client, {self._status.get(job_id)}"
                )


class NotEarly:
    """Nothing starts before its time; replicated time never goes back."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._now_ms = 0

    def on_entry(self, node: SimNode, effects: Effects, index: int) -> None:
        now_ms = node.raft.state.now_ms
        if now_ms < self._now_ms:
            self._world.fail(f"replicated time went back by {self._now_ms - now_ms} ms at {index}")
        self._now_ms = now_ms
        for job in effects.jobs_assigned:
            if job.run_at_ms > now_ms:
                self._world.fail(f"job {job.id} started {job.run_at_ms - now_ms} ms early")

    def at_end(self) -> None:
        return


class SameDigests:
    """Every node that has applied the same entries is in the same state, whatever its history."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._digests: dict[int, int] = {}

    def applied(self, node: SimNode, index: int) -> None:
        """Told of every node's every entry, not only of the first's."""
        digest = node.raft.state.digest
        if self._digests.setdefault(index, digest) != digest:
            self._world.fail(f"{node.id} differs from others at log index {index}")

    def on_entry(self, node: SimNode, effects: Effects, index: int) -> None:
        return

    def at_end(self) -> None:
        states = {summary(node.raft.state) for node in self._world.nodes.values()}
        if len(states) != 1:
            self._world.fail(f"nodes ended in {len(states)} different states")


def summary(state: State) -> tuple[object, ...]:
    """Everything about the rows that must be the same on every node."""
    tables = state.tables
    return (
        state.digest,
        state.now_ms,
        tuple((j.id, j.state, j.attempt, j.failures) for j in tables.jobs.values()),
        tuple(tables.dead),
        tuple((w.id, tuple(w.running)) for w in tables.workers.values()),
        tuple((s.id, s.next_fire_ms, s.run_count) for s in tables.schedules.values()),
        tuple(tables.uniques),
    )


class Invariants:
    """The machine does not contradict itself."""

    def __init__(self, world: World) -> None:
        self._world = world

    def on_entry(self, node: SimNode, effects: Effects, index: int) -> None:
        if index % INVARIANTS_EVERY == 0:
            self._check(node)

    def at_end(self) -> None:
        for node in self._world.nodes.values():
            self._check(node)

    def _check(self, node: SimNode) -> None:
        try:
            invariants.check(node.raft.state)
        except AssertionError as error:
            self._world.fail(f"invariant on {node.id}: {error}")


class Liveness:
    """After the faults everything ends, every slot is free and granted, and nothing is left over.

    `unsettled` says what is still to come; at the end it must be nothing."""

    def __init__(self, world: World) -> None:
        self._world = world

    def on_entry(self, node: SimNode, effects: Effects, index: int) -> None:
        return

    def at_end(self) -> None:
        for problem in self.unsettled():
            self._world.fail(f"not settled: {problem}")

    def unsettled(self) -> list[str]:
        world, leader = self._world, self._world.leader()
        if leader is None:
            return ["no leader"]
        problems = []
        tables = leader.raft.state.tables
        states = Counter(lifecycle.NAMES[job.state] for job in tables.jobs.values())
        if states:
            problems.append(f"live jobs {dict(states)}, first {next(iter(tables.jobs))}")
        for row in tables.schedules.values():
            if 0 < row.next_fire_ms < leader.raft.state.now_ms - LATE_MS:
                problems.append(f"schedule {row.id} did not fire at {row.next_fire_ms}")
        for worker in world.workers:
            problems += self._worker_problems(leader, worker.worker_id, worker.name)
        known = {worker.worker_id for worker in world.workers}
        for worker_id in {*tables.workers, *leader.desk.sessions} - known:
            problems.append(f"worker {worker_id} is a ghost")
        for node in world.nodes.values():
            if node is not leader and node.desk.sessions:
                problems.append(f"follower {node.id} keeps sessions")
            if node.consensus.applied_index != len(world.ledger.entries):
                problems.append(f"{node.id} lags behind")
        return problems

    def _worker_problems(self, leader: SimNode, worker_id: int, name: str) -> list[str]:
        worker = next(w for w in self._world.workers if w.name == name)
        session = leader.desk.sessions.get(worker_id)
        if session is None or worker.connection is None or session.sink is not worker.connection:
            return [f"{name} is not connected to the leader"]
        problems = []
        if worker.running or worker.results.held:
            problems.append(f"{name} runs {list(worker.running)} holds {list(worker.results.held)}")
        if session.credit != worker.spec.slots:
            problems.append(f"{name} has {worker.spec.slots} slots but credit {session.credit}")
        return problems


class Agreement:
    """Leader and worker agree about what runs: what differs for long is lost or haunted.

    `look` is called every second; only differences that last are wrong, as frames take time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._since: dict[tuple[str, int, int], float] = {}

    def on_entry(self, node: SimNode, effects: Effects, index: int) -> None:
        return

    def at_end(self) -> None:
        return

    def look(self) -> None:
        leader, now_s = self._world.leader(), self._world.loop.time()
        found: dict[tuple[str, int, int], float] = {}
        ledger = self._world.ledger
        stalled = now_s < max(ledger.stalled_until_s, ledger.slow_disks_until_s) + 1.0
        if leader is not None and not stalled and ledger.is_effective(leader.consensus):
            for worker in self._world.workers:
                for key in self._differences(leader, worker):
                    since_s = self._since.get(key, now_s)
                    found[key] = since_s
                    if now_s - since_s > DISAGREEMENT_S:
                        self._world.fail(f"{key[0]} and the leader disagree about {key[1:]}")
        self._since = found

    @staticmethod
    def _differences(leader: SimNode, worker: SimWorker) -> list[tuple[str, int, int]]:
        session = leader.desk.sessions.get(worker.worker_id)
        connection = worker.connection
        if session is None or connection is None or session.sink is not connection:
            return []
        if not connection.is_healthy or not worker.is_well:
            return []
        assigned = leader.desk.held(worker.worker_id)
        lost = [
            k for k in assigned.items() if k not in worker.running and k not in worker.results.held
        ]
        over = [k for k in worker.running if assigned.get(k[0]) != k[1]]
        return [(worker.name, *key) for key in lost + over]


class Punctual:
    """While there is a leader that can commit, no timer is due for long. `look` as `Agreement`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._late_since_s = 0.0
        self._due_ms: int | None = None

    def on_entry(self, node: SimNode, effects: Effects, index: int) -> None:
        return

    def at_end(self) -> None:
        return

    def look(self) -> None:
        world, leader = self._world, self._world.leader()
        now_s = world.loop.time()
        due_ms = leader.raft.state.timers.wheel.next_due_ms() if leader is not None else None
        late = (
            leader is not None and due_ms is not None and due_ms < leader.guarded.now_ms() - 1_000
        )
        can_commit = leader is not None and world.ledger.is_effective(leader.consensus)
        moves, self._due_ms = due_ms != self._due_ms, due_ms  # catching up takes its time
        if not late or moves or not can_commit or now_s < world.ledger.stalled_until_s + 1.0:
            self._late_since_s = now_s
        elif now_s - self._late_since_s > DISAGREEMENT_S:
            world.fail(f"time stands still: a timer is due since {due_ms}")


class Histories:
    """Every node's history has every job that ended, but for what an installed snapshot skipped."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ended: dict[int, list[tuple[int, str]]] = {}

    def on_entry(self, node: SimNode, effects: Effects, index: int) -> None:
        for finished in effects.jobs_finished:
            status = lifecycle.STATUS[finished.job.state]
            self._ended.setdefault(finished.job.id, []).append((index, status))

    def at_end(self) -> None:
        for node in self._world.nodes.values():
            missing = 0
            for job_id, ends in self._ended.items():
                rows = node.disk.history.get(job_id, {})
                for index, _ in ends:
                    skipped = any(low < index <= high for low, high in node.disk.gaps)
                    missing += index not in rows and not skipped
            if missing:
                self._world.fail(f"{node.id}: {missing} ended jobs are not in its history")
