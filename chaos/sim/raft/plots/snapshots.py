"""A follower that lags so far that it needs a snapshot, and what happens meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chaos.sim.raft.plots.stage import GiveUp, Overhear, Plot, Stage
from cluster.consensus.wire import AppendReply, Message, SnapshotChunk, SnapshotReply, VoteReply

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life, Machine


class Snapshots(Stage):
    def plots(self) -> tuple[Plot, ...]:
        if self.world.size < 3:
            return ()
        return (
            self.old_snapshot,
            self.late_install,
            self.quorum_installs,
            self.torn_stream,
            self.long_transfer,
            self.outrun_log,
            self.restarted_rival,
        )

    async def old_snapshot(self) -> None:
        """A5: a snapshot is still being checked when a new leader sends the log itself."""
        self.need(3)
        leader = await self.leader()
        follower, other, *_ = self.others(leader.node)
        follower.pace.call_s = (0.5, 1.2)
        await self.lag(leader, follower, 0.4)
        await self.until(lambda: not self.fabric.cuts)
        await asyncio.sleep(self.rng.uniform(0.1, 0.4))
        self.nemesis.spawn(leader, leader.consensus.transfer_leadership(other.id, 500))
        new = await self.leader(but=leader.node)
        await self.commit(new, 10)
        await asyncio.sleep(1.0)
        follower.pace.call_s = (0.0005, 0.01)

    async def late_install(self) -> None:
        """A5: while a follower checks what it received, the sender dies, and the new leader sends
        the log itself. Either that log is committed before the snapshot is checked, or the follower
        does not know yet that it is, as its disk hangs and the new leader needs its answer."""
        self.need(3)
        leader = await self.leader()
        follower, *rest = self.others(leader.node)
        before_s, follower.pace.call_s = follower.pace.call_s, (0.5, 0.9)
        try:
            with self.apart([follower], [leader.node, *rest]):
                for link in self.fabric.links_of(follower.id):
                    self.fabric.reset(link)  # else all it misses would wait in the pipe
                await self.commit(leader, self.rng.choice((20, 60)))
                await self._commit_in_silence(leader, rest)
                await self.snapshot(leader)
            await self._received(follower)
            leader.node.kill()
            with self.overhearing(self._hangs_after_its_vote(follower)):
                new = await self.leader(but=leader.node, after=leader.raft.epoch)
                self.world.users.flood(new, 5)
                await asyncio.sleep(1.0)
        finally:
            follower.pace.call_s, follower.pace.hangs = before_s, False
            leader.node.start()

    async def _commit_in_silence(self, leader: Life, rest: list[Machine]) -> None:
        """The others have the entries, and are not told that they are committed."""
        assert leader.probe is not None
        last = leader.probe.last_index
        self.world.users.flood(leader, 5)
        await self.until(lambda: leader.probe and leader.probe.last_index > last)
        goal = leader.probe.last_index

        def overhear(life: Life, peer: str, message: Message) -> None:
            if not isinstance(message, AppendReply) or peer != leader.id:
                return
            if life.node in rest and message.next_index > goal:
                self.nemesis.cut(leader.id, life.id, 1.0, 1.0)

        with self.overhearing(overhear):
            await self.until(lambda: leader.consensus.applied_index >= goal)

    async def _received(self, follower: Machine) -> None:
        sizes: list[int] = []

        def overhear(life: Life, peer: str, message: Message) -> None:
            if isinstance(message, SnapshotReply) and life.node is follower:
                sizes.append(message.offset)
            elif isinstance(message, SnapshotChunk) and peer == follower.id:
                sizes[:] = [-message.size, *(size for size in sizes if size > 0)]

        with self.overhearing(overhear):
            await self.until(lambda: sizes and -sizes[0] in sizes)

    def _hangs_after_its_vote(self, machine: Machine) -> Overhear:
        hangs = self.rng.random() < 0.5

        def overhear(life: Life, peer: str, message: Message) -> None:
            if isinstance(message, VoteReply) and life.node is machine:
                machine.pace.hangs = hangs

        return overhear

    async def quorum_installs(self) -> None:
        """C4: the majority needs a follower that is busy installing a snapshot."""
        self.need(3)
        leader = await self.leader()
        follower, *rest = self.others(leader.node)
        follower.pace.call_s = (0.1, 0.2)
        follower.pace.stall_s = 1.2  # longer than a leader waits for its majority
        await self.lag(leader, follower, 0.4)
        await self.until(lambda: not self.fabric.cuts and leader.host.epoch(follower.id))
        term = leader.raft.epoch
        voters = leader.probe.voters if leader.probe is not None else ()
        if follower.id not in voters or not self.has_all_voters(leader):
            raise GiveUp
        doomed = [machine for machine in rest if machine.id in voters]
        for machine in doomed[: (len(voters) - 1) // 2]:  # what is left is a bare majority
            machine.kill()
        await asyncio.sleep(2.2)
        follower.pace.call_s, follower.pace.stall_s = (0.0005, 0.01), 0.0
        if self.world.is_calm and not leader.is_over and leader.raft.epoch != term:
            self.world.fail(f"{leader.id} lost its leadership while a follower installed")
        for machine in rest:
            machine.start()

    async def torn_stream(self) -> None:
        """B13, C5: the link breaks while a snapshot comes over it, and newer ones replace it."""
        self.need(3)
        leader = await self.leader()
        follower = self.others(leader.node)[0]
        await self.lag(leader, follower, 0.3)
        await self.until(lambda: not self.fabric.cuts)
        for _ in range(self.rng.randint(2, 8)):
            await asyncio.sleep(self.rng.uniform(0.0, 0.05))
            if self.rng.random() < 0.3:
                await self.commit(leader, 4)
                await self.snapshot(leader)
            else:
                self.fabric.reset_between(leader.id, follower.id)

    async def long_transfer(self) -> None:
        """C5: newer snapshots are taken while one is on its way over a slow line."""
        self.need(3)
        leader = await self.leader()
        follower = self.others(leader.node)[0]
        await self.lag(leader, follower, 0.3)
        before_s, self.fabric.base_s = self.fabric.base_s, (0.03, 0.06)
        try:
            await self.until(lambda: not self.fabric.cuts)
            for _ in range(self.rng.randint(3, 6)):
                await self.commit(leader, 4)
                await self.snapshot(leader)
        finally:
            self.fabric.base_s = before_s

    async def outrun_log(self) -> None:
        """B3: power goes when a received snapshot is on the disk and the log does not know yet."""
        self.need(3)
        leader = await self.leader()
        follower = self.others(leader.node)[0]
        await self.lag(leader, follower, 0.3)
        follower.pace.hangs = True
        try:
            installed = self.installs_of(follower)
            await self.until(lambda: self.installs_of(follower) > installed)
        finally:
            follower.power_off()
            follower.pace.hangs = False
            follower.start()
        await asyncio.sleep(0.5)

    def installs_of(self, machine: Machine) -> int:
        """0 for a node that is down."""
        status = machine.life.consensus.status() if machine.life is not None else {}
        count = status.get("snapshots_installed", 0)
        return count if isinstance(count, int) else 0

    async def restarted_rival(self) -> None:
        """A5: a deposed leader restarts with a tail nobody has. It knows little to be committed, so
        it gets a snapshot that its log goes beyond, and must not claim more than that."""
        self.need(3)
        old = await self.leader()
        rest = self.others(old.node)
        await self.commit(old, self.rng.choice((20, 60)))
        await asyncio.sleep(0.2)
        for machine in rest:
            if machine.life is not None:
                self.nemesis.snapshot_at(machine.life)
        await asyncio.sleep(0.1)
        self.sever(old.node, rest, 1.5)
        self.world.users.flood(old, self.rng.choice((5, 30)))
        await asyncio.sleep(0.3)
        old.node.kill()
        await self.leader(but=old.node, after=old.raft.epoch)
        old.node.start()
        await self.until(lambda: not self.fabric.cuts)
        await asyncio.sleep(0.5)
