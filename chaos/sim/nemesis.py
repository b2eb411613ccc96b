"""Breaks things at random moments, and mends everything when the time for faults is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.clock import GuardedClock
from cluster.consensus import TransferError

if TYPE_CHECKING:
    from chaos.sim.node import SimNode
    from chaos.sim.world import World

HOUR_MS = 3_600_000
AMBUSH_S = 0.02  # a launch takes about so long: tick, decision, proposal, commit, answer


class Nemesis:
    """One fault every few seconds; several may overlap."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stopped = False
        self.task = world.loop.create_task(self._rage(), name="nemesis")
        self.ambush = False  # whoever leads dies when schedules are due
        self._faults: list[tuple[int, Callable[[], None]]] = [
            (8, self.kill_leader),
            (6, self.ambush_leader),
            (1, self.power_off),
            (3, self.kill_any),
            (6, self.isolate_leader),
            (3, self.isolate_follower),
            (2, self.transfer),
            (3, self.stall_quorum),
            (3, self.refuse_proposals),
            (3, self.lose_answers),
            (3, self.slow_follower),
            (3, self.snapshot_any),
            (2, self.install_snapshot),
            (3, self.jump_clock),
        ]
        if world.scene.manned:
            self._faults += [
                (5, self.crash_worker),
                (4, self.stall_worker),
                (4, self.cut_worker),
                (4, self.reset_worker),
                (3, self.hand_back),
                (2, self.drain_worker),
            ]

    async def _rage(self) -> None:
        rng = self.world.rng
        weights = [weight for weight, _ in self._faults]
        while not self.stopped:
            await asyncio.sleep(rng.uniform(*self.world.scene.pace_s))
            if not self.stopped:
                fault = rng.choices(self._faults, weights)[0][1]
                self.world.trace(f"fault {fault.__name__}")
                fault()

    def _later(self, low_s: float, high_s: float, work: Callable[[], None]) -> None:
        self.world.loop.call_later(self.world.rng.uniform(low_s, high_s), work)

    # -- nodes -----------------------------------------------------------------------------------

    def _alive(self) -> list[SimNode]:
        return [node for node in self.world.nodes.values() if node.alive]

    def _leader(self) -> SimNode | None:
        return self.world.leader()

    def kill_leader(self) -> None:
        leader = self._leader()
        if leader is not None:
            self._kill(leader)

    def ambush_leader(self) -> None:
        """It dies somewhere on the way from a timer to a launch, when the next one is due."""
        self.ambush = True

    def schedules_due(self, node: SimNode) -> None:
        if self.ambush and node is self._leader():
            self.ambush = False
            self._later(0.0, AMBUSH_S, lambda: self._kill(node) if node.alive else None)

    def power_off(self) -> None:
        """All nodes stop for a minute, or for hours that pass at once, and start together."""
        for node in self._alive():
            node.crash()
        self._later(1.0, 3.0, self._power_on)

    def _power_on(self) -> None:
        world = self.world
        if not any(node.alive for node in world.nodes.values()):
            away_ms = world.rng.choice(world.scene.outages_ms)
            world.trace(f"{away_ms} ms have passed")
            world.time.leap(away_ms)
        for node in world.nodes.values():
            if not node.alive:
                node.start()

    def kill_any(self) -> None:
        alive = self._alive()
        if alive:
            self._kill(self.world.rng.choice(alive))

    def _kill(self, node: SimNode) -> None:
        node.crash()
        self._later(0.2, 6.0, lambda: None if node.alive else node.start())

    def isolate_leader(self) -> None:
        leader = self._leader()
        if leader is not None:
            self._isolate(leader)

    def isolate_follower(self) -> None:
        followers = [node for node in self._alive() if node is not self._leader()]
        if followers:
            self._isolate(self.world.rng.choice(followers))

    def _isolate(self, node: SimNode) -> None:
        """Cut off from the other nodes; workers and clients may still reach it."""
        if node.id in self.world.ledger.isolated:
            return
        self.world.ledger.isolate(node.id)
        if self.world.rng.random() < 0.5:
            self.world.unreachable.add(node.id)
        self._later(0.2, 8.0, lambda: self.heal(node))

    def heal(self, node: SimNode) -> None:
        self.world.unreachable.discard(node.id)
        if node.id in self.world.ledger.isolated:
            self.world.trace(f"heal {node.id}")
            self.world.ledger.heal(node.id)

    def transfer(self) -> None:
        leader = self._leader()
        if leader is None:
            return

        async def hand_over() -> None:
            try:
                await leader.raft.transfer(None)
            except TransferError:
                return

        leader.spawn(hand_over())

    def stall_quorum(self) -> None:
        """Nothing commits for a while, sometimes beyond the proposals' deadline."""
        ledger = self.world.ledger
        until_s = self.world.loop.time() + self.world.rng.choice((0.5, 2.0, 13.0, 13.0, 90.0))
        ledger.stalled_until_s = max(ledger.stalled_until_s, until_s)

    def refuse_proposals(self) -> None:
        self.world.ledger.refusing_until_s = self.world.loop.time() + self.world.rng.choice(
            (1.0, 5.0)
        )

    def lose_answers(self) -> None:
        """Some proposals commit and nobody is told; often disks are slow at the time."""
        ledger, until_s = self.world.ledger, self.world.loop.time() + 3.0
        ledger.forgetting_until_s = until_s
        ledger.slow_disks_until_s = until_s if self.world.rng.random() < 0.7 else 0.0

    def slow_follower(self) -> None:
        node_id = self.world.rng.choice(self.world.node_ids)
        self.world.ledger.slow[node_id] = self.world.rng.choice((0.0, 0.3, 2.0))

    def snapshot_any(self) -> None:
        alive = self._alive()
        if alive:
            node = self.world.rng.choice(alive)
            node.spawn(node.snapshot())
            if self.world.rng.random() < 0.3:
                self._later(0.0, 0.4, lambda: self._kill(node) if node.alive else None)

    def install_snapshot(self) -> None:
        leader = self._leader()
        others = [node for node in self._alive() if node is not leader]
        if leader is not None and others:
            self.world.rng.choice(others).install_from(leader)

    def jump_clock(self) -> None:
        """An hour or a moment, forward or back, the leader's or another's; it lasts a while."""
        rng = self.world.rng
        node = self._leader() if rng.random() < 0.7 else rng.choice(self._alive() or [None])
        if node is None:
            return
        delta_ms = rng.choice((-HOUR_MS, HOUR_MS, -700, 700, -5_000, 5_000))
        node.clock.jump(delta_ms)
        self.world.trace(f"clock of {node.id} jumps {delta_ms}")
        self._later(1.0, 15.0, lambda: self._right_clock(node))

    def _right_clock(self, node: SimNode) -> None:
        if not self.stopped:
            node.clock.set_offset(0)

    # -- workers ---------------------------------------------------------------------------------

    def crash_worker(self) -> None:
        worker = self.world.any_worker()
        if worker is not None:
            worker.crash()
            self.world.haunt(worker)
            self._later(0.1, 3.0, self.world.add_worker)

    def stall_worker(self) -> None:
        worker = self.world.any_worker()
        if worker is not None:
            worker.stall(self.world.rng.choice((0.5, 2.0, 4.0, 9.0)))

    def cut_worker(self) -> None:
        worker = self.world.any_worker()
        if worker is not None and worker.connection is not None:
            worker.connection.cut()

    def reset_worker(self) -> None:
        worker = self.world.any_worker()
        if worker is not None and worker.connection is not None:
            worker.connection.reset()

    def hand_back(self) -> None:
        worker = self.world.any_worker()
        if worker is not None:
            worker.hand_back()

    def drain_worker(self) -> None:
        """An operator drains a worker; a new one takes its place."""
        worker, leader = self.world.any_worker(), self._leader()
        if worker is not None and leader is not None and worker.worker_id:
            leader.spawn(self.world.quietly(leader.desk.drain(worker.worker_id)))
            self._later(0.1, 3.0, self.world.add_worker)

    # -- the end of it ---------------------------------------------------------------------------

    def mend(self) -> None:
        """All faults end; what was broken heals, restarts or is replaced."""
        self.stopped = True
        world = self.world
        latest_ms = world.latest_now_ms()  # who starts below has to read its log first
        world.ledger.mend()
        for node in world.nodes.values():
            self.heal(node)
            if not node.alive:
                node.start()
        # An hour that replicated time is ahead would pass; nobody learns anything by waiting.
        clocks_ms = [node.clock.now_ms() for node in world.nodes.values()]
        ahead_ms = max(latest_ms, *clocks_ms) - world.true_now_ms()
        for node in world.nodes.values():
            node.clock.set_offset(max(ahead_ms, 0))
            if isinstance(node.guarded, GuardedClock):
                node.guarded.accept()  # an operator has looked at it
