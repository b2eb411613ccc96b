"""A simulated worker: keeps results until they are acknowledged and follows the leader.

Behaves as `quorate.worker` does on the wire, and on top misbehaves on command: it crashes, stalls
beyond its TTL and answers late, never answers, hands back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.sim.link import HEARTBEAT_S, Connection, Frame
from chaos.sim.node import WORKER_TTL_MS
from cluster.actors.services import Assignment
from cluster.machine.model import WorkerSpec

if TYPE_CHECKING:
    from chaos.sim.node import SimNode
    from chaos.sim.world import World

Key = tuple[int, int]

FLUSH_S = 0.002
SILENCE_S = WORKER_TTL_MS / 1000
STOP_S = 0.02  # a cancelled job takes so long to stop
MIN_RUN_S, MAX_RUN_S = 0.005, 0.8


@dataclass
class Results:
    """What the worker has to say and what it said without an answer yet."""

    queued: dict[str, list[tuple[Any, ...]]] = field(
        default_factory=lambda: {"done": [], "failed": [], "released": []}
    )
    unacked: dict[int, tuple[str, list[tuple[Any, ...]]]] = field(default_factory=dict)
    held: dict[Key, None] = field(default_factory=dict)
    credit: int = 0
    seq: int = 0

    def restart(self, stale: list[Key], credit: int) -> None:
        """A new connection: everything unacknowledged is said again but for what is stale."""
        queued: dict[str, list[tuple[Any, ...]]] = {"done": [], "failed": [], "released": []}
        for kind, items in self.unacked.values():
            queued[kind] += items
        for kind, items in self.queued.items():
            queued[kind] += items
        self.unacked.clear()
        self.queued = {
            kind: [item for item in items if item[:2] not in stale]
            for kind, items in queued.items()
        }
        self.held = {item[:2]: None for items in self.queued.values() for item in items}
        self.credit = credit


class SimWorker:
    """One worker process. All randomness comes from the world's generator."""

    def __init__(self, world: World, name: str, spec: WorkerSpec) -> None:
        self.world = world
        self.name = name
        self.spec = spec
        self.worker_id = 0
        self.running: dict[Key, asyncio.TimerHandle | None] = {}
        self.stopping: set[Key] = set()
        self.results = Results()
        self.connection: Connection | None = None
        self.registered = False
        self.draining = False
        self.alive = True
        self.tries = 0
        self._hint: str | None = None
        self._stalled_until_s = 0.0
        self._inbox: list[tuple[Connection, Frame]] = []
        self._received_at_s = 0.0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._later(world.rng.uniform(0, 0.1), self._connect)
        self._later(HEARTBEAT_S, self._beat)

    def _later(self, delay_s: float, work: Any, *arguments: Any) -> asyncio.TimerHandle:
        return self.world.loop.call_later(delay_s, self._if_up, work, *arguments)

    def _if_up(self, work: Any, *arguments: Any) -> None:
        """A dead process does nothing; a stalled one does it when it goes on."""
        if not self.alive:
            return
        wait_s = self._stalled_until_s - self.world.loop.time()
        if wait_s > 0:
            self._later(wait_s, work, *arguments)
        else:
            work(*arguments)

    @property
    def is_well(self) -> bool:
        """Connected, awake, and nothing is on its way there."""
        awake = self.world.loop.time() >= self._stalled_until_s and not self._inbox
        return self.alive and self.registered and awake

    @property
    def free_slots(self) -> int:
        return 0 if self.draining else max(0, self.spec.slots - len(self.running))

    # -- connecting ------------------------------------------------------------------------------

    def _connect(self) -> None:
        node = self._find_leader()
        if node is None:
            self._retry()
            return
        self._received_at_s = self.world.loop.time()
        self.connection = Connection(self.world, self, node)
        claimed = list(dict.fromkeys([*self.running, *self.results.held]))
        self.connection.from_worker(("register", self.spec, self.worker_id, claimed))

    def _find_leader(self) -> SimNode | None:
        world, hint = self.world, self._hint
        self._hint = None
        nodes = [node for node in world.nodes.values() if node.alive and world.reachable(node)]
        if hint is not None:
            return next((node for node in nodes if node.id == hint), None)
        if not nodes:
            return None
        asked = world.rng.choice(nodes)
        leader = asked.raft.leader_id
        return next((node for node in nodes if node.id == leader), asked)

    def _retry(self) -> None:
        self.tries += 1
        pause_s = min(1.0, 0.05 * 2 ** min(self.tries, 6))
        self._later(self.world.rng.uniform(pause_s / 4, pause_s), self._connect)

    def link_lost(self, connection: Connection) -> None:
        if connection is self.connection and self.alive:
            self.connection = None
            self.registered = False
            self._retry()

    def _drop_link(self) -> None:
        connection, self.connection = self.connection, None
        self.registered = False
        if connection is not None:
            connection.worker_open = False
            rng = self.world.rng
            self.world.loop.call_later(
                rng.uniform(0, 0.05), connection.close_node_end, context=connection.node.context
            )

    def _beat(self) -> None:
        self._later(HEARTBEAT_S, self._beat)
        if self.connection is None:
            return
        if self.world.loop.time() - self._received_at_s > SILENCE_S:
            self._drop_link()
            self._retry()
        elif self.registered:
            self.connection.from_worker(("heartbeat",))

    # -- receiving -------------------------------------------------------------------------------

    def receive(self, connection: Connection, frame: Frame) -> None:
        if not self.alive or connection is not self.connection:
            return
        if self.world.loop.time() < self._stalled_until_s:
            if not self._inbox:
                self._later(0.0, self._read_inbox)
            self._inbox.append((connection, frame))
            return
        self._handle(frame)

    def _read_inbox(self) -> None:
        inbox, self._inbox = self._inbox, []
        for connection, frame in inbox:
            self.receive(connection, frame)

    def _handle(self, frame: Frame) -> None:
        self._received_at_s = self.world.loop.time()
        kind = frame[0]
        if kind == "registered":
            self._registered(frame[1], frame[2])
        elif kind == "jobs":
            if not self.registered:
                self.world.fail(f"{self.name}: jobs came before the registration's answer")
            for job in frame[1]:
                self._start(job)
        elif kind in ("cancel", "stop"):
            end = self._stop if kind == "cancel" else self._end_early
            for key in frame[1]:
                end(key)
        elif kind == "ack":
            for item in self.results.unacked.pop(frame[1], ("", []))[1]:
                self.results.held.pop(item[:2], None)
            self._leave_if_idle()
        elif kind == "drain":
            if not self.registered:
                self.world.fail(f"{self.name}: drain came before the registration's answer")
            self.drain()
        elif kind == "moved":
            self._hint = frame[1].removeprefix("http://") if frame[1] else None
            self._drop_link()
            self._retry()

    def _registered(self, worker_id: int, stale: list[Key]) -> None:
        self.worker_id = worker_id
        self.registered = True
        self.tries = 0
        for key in stale:
            self._stop(key)
        self.results.restart(stale, self.free_slots)
        self._flush_soon()
        if self.draining:
            assert self.connection is not None
            self.connection.from_worker(("drain",))
            self._leave_if_idle()

    # -- working ---------------------------------------------------------------------------------

    def _start(self, job: Assignment) -> None:
        key = (job.job_id, job.attempt)
        if key in self.running or key in self.results.held:
            self.results.credit += 1
            self._flush_soon()
            return
        if len(self.running) >= self.spec.slots:
            self.world.fail(f"{self.name}: more jobs than its {self.spec.slots} slots")
        self.world.started(self, job)
        plan = self.world.plan_run(job)
        self.running[key] = None
        if plan != "hang":
            run_s = self.world.rng.uniform(MIN_RUN_S, MAX_RUN_S)
            self.running[key] = self._later(run_s, self._finish, key, plan)

    def _finish(self, key: Key, plan: str) -> None:
        if key not in self.running or key in self.stopping:
            return
        del self.running[key]
        if plan == "done":
            output = b"%d.%d" % key
            self.world.produced(key, "done")
            self._say("done", (*key, output))
        elif plan == "release":
            self._say("released", key)
        else:
            self._say("failed", (*key, "Boom", "as planned", plan == "fail", None))
        self._freed()

    def hand_back(self) -> None:
        """Give everything that runs back unfinished."""
        for key, handle in list(self.running.items()):
            if key not in self.stopping:
                if handle is not None:
                    handle.cancel()
                self._finish(key, "release")

    def _end_early(self, key: Key) -> None:
        """It shall stop and say how it ended; now and then it does not, and is cancelled later."""
        handle = self.running.get(key)
        if handle is not None and key not in self.stopping and self.world.rng.random() < 0.8:
            handle.cancel()
            self.running[key] = self._later(STOP_S, self._finish, key, "final")

    def _stop(self, key: Key) -> None:
        if key in self.running and key not in self.stopping:
            self.stopping.add(key)
            self._later(STOP_S, self._stopped, key)

    def _stopped(self, key: Key) -> None:
        self.stopping.discard(key)
        del self.running[key]
        self._freed()

    def _freed(self) -> None:
        if not self.draining:
            self.results.credit += 1
        self._flush_soon()
        self._leave_if_idle()

    def _say(self, kind: str, item: tuple[Any, ...]) -> None:
        self.results.queued[kind].append(item)
        self.results.held[item[:2]] = None

    def _flush_soon(self) -> None:
        if self._flush_timer is None:
            self._flush_timer = self._later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        connection, results = self.connection, self.results
        if connection is None or not self.registered:
            return
        credit, results.credit = results.credit, 0
        for kind, items in results.queued.items():
            if items:
                results.seq += 1
                results.unacked[results.seq] = (kind, items)
                results.queued[kind] = []
                connection.from_worker((kind, results.seq, items, credit))
                credit = 0
        if credit:
            connection.from_worker(("credit", credit))

    # -- leaving and misbehaving -------------------------------------------------------------------

    def drain(self) -> None:
        if not self.draining:
            self.draining = True
            if self.connection is not None and self.registered:
                self.connection.from_worker(("drain",))
            self._leave_if_idle()

    def _leave_if_idle(self) -> None:
        idle = not self.running and not self.results.held
        if self.draining and idle and self.connection is not None and self.registered:
            self.connection.from_worker(("bye",))
            self._drop_link()
            self.alive = False
            self.world.worker_left(self)

    def crash(self) -> None:
        self.world.trace(f"crash {self.name}")
        self.alive = False
        self._drop_link()

    def stall(self, stall_s: float) -> None:
        """Nothing is read, run or said for a while; then all of it at once."""
        self._stalled_until_s = self.world.loop.time() + stall_s
