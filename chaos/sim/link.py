"""A worker's stream to a node: both directions in order and late, and every way it can break.

The node's end does what the HTTP edge does with frames: it calls the desk and sends answers back.
Frames are Python tuples of the shapes of the wire protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from chaos.sim.node import WORKER_TTL_MS, SimNode
from cluster.actors.assigned import Assigned
from cluster.actors.services import (
    AttemptError,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
)
from cluster.machine.model import WorkerSpec

if TYPE_CHECKING:
    from chaos.sim.worker import SimWorker
    from chaos.sim.world import World

Frame = tuple[Any, ...]

HEARTBEAT_S = WORKER_TTL_MS / 3000


class Connection:
    """One WebSocket, as seen from both ends. The node's end is the desk's `Sink`."""

    def __init__(self, world: World, worker: SimWorker, node: SimNode) -> None:
        self.worker_id = 0
        self.node = node
        self.node_open = True
        self.worker_open = True
        self._world = world
        self._worker = worker
        self._incarnation = node.incarnation
        self._up: deque[Frame] = deque()
        self._down: deque[Frame] = deque()
        self._up_at_s = 0.0
        self._down_at_s = 0.0
        self._silent = False  # cut without anybody being told
        node.connections[self] = None

    # -- transport -------------------------------------------------------------------------------

    def _is_cut(self) -> bool:
        """A stream that has lost a frame is dead for good: nothing after it can arrive."""
        if self.node.id in self._world.unreachable:
            self._silent = True
        return self._silent

    def from_worker(self, frame: Frame) -> None:
        """The worker sends."""
        if self.worker_open and not self._is_cut():
            loop = self._world.loop
            self._up_at_s = max(self._up_at_s, loop.time() + self._world.wire_s())
            self._up.append(frame)
            loop.call_at(self._up_at_s, self._arrive_up, context=self.node.context)

    def _to_worker(self, frame: Frame) -> None:
        if self.node_open and not self._is_cut():
            loop = self._world.loop
            self._down_at_s = max(self._down_at_s, loop.time() + self._world.wire_s())
            self._down.append(frame)
            loop.call_at(self._down_at_s, self._arrive_down)

    def _arrive_up(self) -> None:
        frame = self._up.popleft()
        if self.node_open and self.node.incarnation == self._incarnation and self.node.alive:
            self._serve(frame)

    def _arrive_down(self) -> None:
        frame = self._down.popleft()
        if self.worker_open:
            self._worker.receive(self, frame)

    @property
    def is_healthy(self) -> bool:
        return self.node_open and self.worker_open and not self._is_cut()

    def cut(self) -> None:
        """From now on frames vanish and nobody is told: both ends have to notice the silence."""
        self._silent = True

    def reset(self) -> None:
        """The connection breaks and both ends are told, at different times."""
        loop, rng = self._world.loop, self._world.rng
        loop.call_later(rng.uniform(0.0, 0.05), self.close_node_end, context=self.node.context)
        loop.call_later(rng.uniform(0.0, 0.05), self.close_worker_end)

    def node_died(self) -> None:
        self.node_open = False
        self._world.loop.call_later(self._world.rng.uniform(0.0, 0.05), self.close_worker_end)

    def close_worker_end(self) -> None:
        if self.worker_open:
            self.worker_open = False
            self._worker.link_lost(self)

    def close_node_end(self) -> None:
        if self.node_open:
            self.node_open = False
            self.node.connections.pop(self, None)
            if self.worker_id:
                self.node.desk.disconnected(self.worker_id, self)

    # -- the node's end: Sink ----------------------------------------------------------------------

    def send_jobs(self, jobs: Assigned) -> None:
        rows, told = self.node.raft.state.tables.jobs, jobs.rows()
        for job in told:
            row = rows.get(job.job_id)
            if row is None or row.attempt != job.attempt or row.worker_id != self.worker_id:
                self._world.fail(f"{self.node.id} pushes {(job.job_id, job.attempt)}: not assigned")
        self._to_worker(("jobs", told))

    def send_cancel(self, attempts: list[tuple[int, int]]) -> None:
        self._to_worker(("cancel", attempts))

    def send_stop(self, attempts: list[tuple[int, int]]) -> None:
        self._to_worker(("stop", attempts))

    def send_drain(self) -> None:
        self._to_worker(("drain",))

    def close_moved(self, leader_http: str | None) -> None:
        self._to_worker(("moved", leader_http))
        self._world.loop.call_soon(self.close_node_end)

    # -- the node's end: what the edge does --------------------------------------------------------

    def _serve(self, frame: Frame) -> None:
        desk = self.node.desk
        kind = frame[0]
        if self.worker_id:
            desk.seen(self.worker_id)
        if kind == "register":
            self.node.spawn(self._register(*frame[1:]))
        elif not self.worker_id or kind == "heartbeat":
            return
        elif kind == "credit":
            desk.grant(self.worker_id, frame[1])
        elif kind == "drain":
            self.node.spawn(self._guard(desk.drain(self.worker_id)))
        elif kind == "bye":
            self.node.spawn(self._guard(desk.leave(self.worker_id)))
        else:
            self.node.spawn(self._settle(*frame))

    async def _register(
        self, spec: WorkerSpec, known_id: int, running: list[tuple[int, int]]
    ) -> None:
        try:
            worker_id, drop = await self.node.desk.register(spec, known_id, running, self)
        except (NotLeader, OutcomeUnknown, Overloaded):
            self.close_moved(None)
            return
        if not self.node_open:
            self.node.desk.disconnected(worker_id, self)
            return
        self.worker_id = worker_id
        self._to_worker(("registered", worker_id, drop))
        self._heartbeat()

    def _heartbeat(self) -> None:
        if self.node_open and self.node.alive:
            self._to_worker(("heartbeat",))
            self._world.loop.call_later(HEARTBEAT_S, self._heartbeat)

    async def _settle(self, kind: str, seq: int, items: list[Frame], credit: int) -> None:
        desk, by = self.node.desk, self.worker_id
        if credit:
            desk.grant(by, credit)
        ids, attempts = [item[0] for item in items], [item[1] for item in items]
        try:
            if kind == "done":
                refused = await desk.complete(by, ids, attempts, [i[2] for i in items], None)
            elif kind == "failed":
                refused = await desk.fail(by, [AttemptError(*item) for item in items])
            else:
                refused = await desk.release(by, ids, attempts)
        except (NotLeader, OutcomeUnknown, Overloaded):
            self.close_moved(None)  # results stay at the worker, which says them again
            return
        self._to_worker(("ack", seq, refused))

    async def _guard(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except (NotLeader, OutcomeUnknown, Overloaded):
            self.close_moved(None)
