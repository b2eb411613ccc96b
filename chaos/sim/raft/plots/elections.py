"""Who leads: terms without a leader, leaders that are gone, mute or handing over."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from chaos.sim.raft.plots.stage import MEMBERS_FOR_TWO_SIDES, GiveUp, Plot, Stage
from cluster.consensus import TransferError
from cluster.consensus.wire import Message, RequestVote, VoteReply

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life

DEATH_NOTICED_S = 0.25  # an election timeout is longer


class Elections(Stage):
    def plots(self) -> tuple[Plot, ...]:
        told: tuple[Plot, ...] = ()
        if self.world.size >= 3:
            told += (self.plain_death, self.mute_leader, self.busy_transfer, self.ghosts)
        if self.world.size >= MEMBERS_FOR_TWO_SIDES:
            told += (self.split_term, self.half_deaf)
        return told

    async def split_term(self) -> None:
        """C3: one vote away from leading, a candidate loses a link. It and its only voter are in a
        term of their own; the old leader, which all can reach again, goes on in the one before."""
        self.need(MEMBERS_FOR_TWO_SIDES)
        leader = await self.leader()
        term = leader.raft.epoch
        first, second, third, *rest = self.others(leader.node)
        trio = {machine.id: machine for machine in (first, second, third)}
        cut: list[tuple[str, str]] = []

        def overhear(life: Life, peer: str, message: Message) -> None:
            if cut or life.id not in trio or not isinstance(message, RequestVote):
                return
            if message.term > term:
                lost = self.rng.choice([one for one in trio if one != life.id])
                cut.append((life.id, lost))
                self.fabric.cut(life.id, lost)

        try:
            with self.overhearing(overhear), self.apart([*trio.values()], [leader.node, *rest]):
                await self.until(lambda: cut)
                await asyncio.sleep(0.05)
        finally:
            for source, target in cut:
                self.fabric.reset_between(source, target)
                self.fabric.heal(source, target)
        await asyncio.sleep(1.0)

    async def half_deaf(self) -> None:
        """C2: three of five miss their leader and elect another; the fourth hears it, and waits.
        As nothing commits, the leader soon takes no entries any more, and all logs are equal."""
        self.need(MEMBERS_FOR_TWO_SIDES)
        leader = await self.leader()
        deaf = self.others(leader.node)[: self.world.size // 2 + 1]
        with contextlib.ExitStack() as stack:
            for machine in deaf:
                stack.enter_context(self.mute(machine, leader.node))
            self.world.users.flood(leader, 40)
            await asyncio.sleep(0.1)
            stack.enter_context(self.apart([leader.node], deaf))
            await self.leader(but=leader.node, after=leader.raft.epoch)
            await asyncio.sleep(self.rng.uniform(0.0, 0.5))

    async def ghosts(self) -> None:
        """A6: somebody who is no member votes for whoever wants to lead, before anybody else."""
        self.need(3)
        strangers = [one for one in self.world.machines.values() if not one.is_used]
        if not strangers:
            raise GiveUp
        ghost = strangers[0]
        ghost.is_used = True
        ghost.start()
        await asyncio.sleep(0.8)
        leader = await self.leader()
        term = leader.raft.epoch
        leader.node.kill()
        for _ in range(300):
            for machine in self.others(ghost):
                for later in (1, 2):
                    self.fabric.forge(ghost.id, machine.id, VoteReply(term + later))
            await asyncio.sleep(0.002)
        leader.node.start()

    async def plain_death(self) -> None:
        """A closed connection says more than a timeout."""
        self.need(3)
        old = await self.leader()
        await asyncio.sleep(0.5)
        if not self.has_all_voters(old):
            raise GiveUp
        began_s, term = self.world.loop.time(), old.raft.epoch
        old.node.kill()
        await self.leader(but=old.node, after=term)
        took_s = self.world.loop.time() - began_s
        self.world.trace(f"led again after {took_s:.3f} s")
        if self.world.is_quick and took_s > DEATH_NOTICED_S:
            self.world.fail(f"the death of {old.id} was noticed after {took_s:.3f} s")
        old.node.start()

    async def mute_leader(self) -> None:
        """Without a majority nobody believes in itself for long: a little longer if a follower was
        just about to take over a snapshot."""
        self.need(3)
        old = await self.leader()
        term = old.raft.epoch
        self.sever(old.node, self.others(old.node), 2.0)
        await asyncio.sleep(1.5)
        is_patient = old.probe is not None and old.probe.awaits_install
        if self.world.is_calm and old.raft.epoch == term and not (old.is_over or is_patient):
            self.world.fail(f"{old.id} leads without hearing anybody")
        await asyncio.sleep(0.6)

    async def busy_transfer(self) -> None:
        """Leadership is handed over under load, to the very node that was meant to get it."""
        self.need(3)
        old = await self.leader()
        target = self.others(old.node)[0]
        await asyncio.sleep(0.3)
        if old.is_over or not old.raft.is_leader or not target.is_up:
            raise GiveUp
        if not any(peer.connected for peer in old.consensus.peers() if peer.id == target.id):
            raise GiveUp  # it has just started
        self.world.users.flood(old, 100)
        work = old.consensus.transfer_leadership(target.id, 1500)
        try:
            self.world.users.flood(old, 30)
            await self.world.loop.create_task(work, context=old.context)
        except TransferError as error:
            if self.world.is_calm and target.id in old.consensus.members().voters:
                self.world.fail(f"a transfer under load failed: {error}")
