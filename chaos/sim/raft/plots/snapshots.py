"""A follower that lags so far that it needs a snapshot, and what happens meanwhile."""

from __future__ import annotations

import asyncio

from chaos.sim.raft.plots.stage import GiveUp, Plot, Stage


class Snapshots(Stage):
    def plots(self) -> tuple[Plot, ...]:
        if self.world.size < 3:
            return ()
        return (self.old_snapshot, self.quorum_installs, self.torn_stream)

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

    async def quorum_installs(self) -> None:
        """C4: the majority needs a follower that is busy installing a snapshot."""
        self.need(3)
        leader = await self.leader()
        follower, *rest = self.others(leader.node)
        follower.pace.call_s = (0.1, 0.2)
        follower.pace.stall_s = 1.2  # longer than a leader waits for its majority
        await self.lag(leader, follower, 0.4)
        term = leader.raft.epoch
        voters = leader.probe.voters if leader.probe is not None else ()
        if follower.id not in voters:
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
