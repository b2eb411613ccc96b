"""The operator of the simulated cluster: brings a node back whose disk is lost, as documented.

A lost disk has forgotten votes and acknowledgements. Until the node was removed and added again,
with an empty folder, its disk counts as dead: it must not vote nor acknowledge anything, however
often somebody starts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.consensus import MembershipError
from cluster.consensus.wire import AppendReply, Message, VoteReply

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life, Machine
    from chaos.sim.raft.world import World

LOOK_S = 0.1
REMOVED = "was removed from the cluster"
UNKNOWN_FOLDER = "knows this node with another data folder"


class Repair:
    def __init__(self, world: World) -> None:
        self._world = world
        self._lost: dict[str, str] = {}  # node: the data folder that the cluster knows it by

    def is_lost(self, machine: Machine) -> bool:
        return machine.id in self._lost

    @property
    def is_done(self) -> bool:
        return not self._lost

    # A disk is lost --------------------------------------------------------------------------

    def may_lose(self, machine: Machine) -> bool:
        """One at a time, and only once every member's disk says whose folder it is: in the first
        moments of a cluster nobody can tell a lost disk from a new one. And never one of two
        voters: nobody could take it out of the cluster then, so it would be lost for good."""
        world = self._world
        if machine.id in world.invariants.voters and len(world.invariants.voters) < 3:
            return False
        members = [one for one in world.machines.values() if one.id in world.invariants.members]
        folders = set()
        for one in members:
            probe = one.life.probe if one.life is not None else None
            if probe is None or not probe.members_are_durable:
                return False
            folders.add(probe.folder_of(machine.id))
        return not self._lost and machine in members and len(folders) == 1 and folders != {""}

    def lose(self, machine: Machine) -> None:
        assert machine.life is not None and machine.life.probe is not None
        self._lost[machine.id] = machine.life.probe.folder_of(machine.id)
        self._world.trace(f"{machine.name} loses its disk")
        machine.kill()
        machine.replace_disk()

    def on_sent(self, life: Life, message: Message) -> None:
        """A7: what was promised is gone, so nothing may be promised again."""
        speaks = isinstance(message, AppendReply) and message.success
        if self.is_lost(life.node) and (speaks or isinstance(message, VoteReply)):
            self._world.fail(f"{life.id} has lost its disk and says {message}")

    def expects_end(self, life: Life, reason: str) -> bool:
        """A node that ends itself because it was told that it does not belong there."""
        if UNKNOWN_FOLDER in reason:
            return self.is_lost(life.node)
        if REMOVED in reason and life.id not in self._world.invariants.members:
            life.node.is_retired = life.id not in self._lost
            return True
        return False

    # And replaced ----------------------------------------------------------------------------

    async def bring_back(self, machine: Machine) -> None:
        """Asks again and again until the node votes; every step may fail and be repeated."""
        while self.is_lost(machine) or not self._votes(machine):
            await asyncio.sleep(LOOK_S)
            life = self._leader()
            if life is None or life.probe is None:
                continue
            known = life.probe.folder_of(machine.id)
            try:
                if known is not None and known == self._lost.get(machine.id):
                    await self._ask(life, life.consensus.remove_member(machine.id, 1500))
                elif machine.id not in self._world.invariants.members:
                    self._let_in(machine)
                    await self._ask(life, life.consensus.add_member(machine.id, 1500))
            except MembershipError as error:
                self._world.trace(f"repair of {machine.name}: {error}")

    async def _ask(self, life: Life, change: Coroutine[Any, Any, object]) -> None:
        """Whatever it sets off happens in that node."""
        task = self._world.loop.create_task(change, context=life.context)
        self._world.adopt(task)
        # The story may end, or lose patience, before the node answers: nobody asks then.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([task], timeout=2.0)
        if task.done() and not task.cancelled():
            task.result()

    def _let_in(self, machine: Machine) -> None:
        if machine.id in self._lost:
            machine.kill()
            machine.replace_disk()
            del self._lost[machine.id]
            machine.config = replace(machine.config, join=True)
            self._world.invariants.forget(machine.id)
        machine.start()

    def _votes(self, machine: Machine) -> bool:
        life = self._leader()
        return life is not None and life.probe is not None and machine.id in life.probe.voters

    def _leader(self) -> Life | None:
        ready = [life for life in self._world.lives() if life.consensus.is_leader_ready]
        return max(ready, key=lambda life: life.consensus.term) if ready else None

    async def finish(self) -> None:
        """What a story left undone."""
        for node_id in list(self._lost):
            await self.bring_back(self._world.machines[node_id])
