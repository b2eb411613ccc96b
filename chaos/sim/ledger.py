"""The quorum's truth: one totally ordered log, who may append to it, and what a failover keeps.

Stands in for Raft with its promises and none of its messages: a committed entry stays, a new leader
has all of them, of the old leader's uncommitted tail any prefix may survive, and a deposed leader
that still believes in itself commits nothing. Consensus itself is tested elsewhere, on real code.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from cluster.consensus import Outcome, ProposalCallback, Role

if TYPE_CHECKING:
    from chaos.sim.consensus import SimConsensus


@dataclass(slots=True, eq=False)
class Proposal:
    """An entry on its way; `reachable` when some follower may hold it already."""

    entry: bytes
    callback: ProposalCallback | None
    started_s: float
    reachable: bool
    index: int = 0
    survived: bool = False
    ended: bool = False


class Ledger:
    """All members of one cluster. Times in seconds of virtual time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: Random, size: int) -> None:
        self.loop = loop
        self.rng = rng
        self.size = size
        self.entries: list[bytes] = []
        self.term = 0
        self.leader: SimConsensus | None = None
        self.members: dict[str, SimConsensus] = {}
        self.isolated: set[str] = set()
        self.stalled_until_s = 0.0  # nothing commits before
        self.refusing_until_s = 0.0  # leaders are full and refuse some proposals
        self.forgetting_until_s = 0.0  # leaders lose the answers of some proposals
        self.slow_disks_until_s = 0.0  # every commit takes long
        self.slow: dict[str, float] = {}  # extra delay of commits to a member
        self.elections = 0
        self._commit_timer: asyncio.TimerHandle | None = None
        self._election: asyncio.TimerHandle | None = None

    # -- who can talk ----------------------------------------------------------------------------

    def connected(self) -> list[SimConsensus]:
        return [
            member
            for node_id, member in sorted(self.members.items())
            if member.alive and node_id not in self.isolated
        ]

    def has_quorum(self) -> bool:
        return len(self.connected()) * 2 > self.size

    def is_effective(self, member: SimConsensus) -> bool:
        """Whether what this member appends can commit."""
        return (
            self.leader is member
            and member.alive
            and member.role is Role.LEADER
            and member.node_id not in self.isolated
            and self.has_quorum()
        )

    # -- committing ------------------------------------------------------------------------------

    def appended(self, member: SimConsensus) -> None:
        """`member` has something in its tail."""
        if self._commit_timer is None and member.tail and self.is_effective(member):
            self._commit_timer = self.loop.call_later(self._latency_s(), self._commit)

    def _latency_s(self) -> float:
        wait_s = max(self.stalled_until_s - self.loop.time(), 0.0)
        if self.loop.time() < self.slow_disks_until_s:
            return wait_s + self.rng.uniform(0.05, 0.6)
        usual_s = self.rng.uniform(0.0005, 0.006)
        return wait_s + (usual_s if self.rng.random() < 0.97 else self.rng.uniform(0.01, 0.2))

    def _commit(self) -> None:
        self._commit_timer = None
        leader = self.leader
        if leader is None or not leader.tail or not self.is_effective(leader):
            return
        if self.loop.time() < self.stalled_until_s:
            self.appended(leader)
            return
        for _ in range(self.rng.randint(1, len(leader.tail))):
            proposal = leader.tail.popleft()
            self.entries.append(proposal.entry)
            proposal.index = len(self.entries)
            if proposal.callback is not None:
                leader.awaiting.append(proposal)
        for member in self.connected():
            member.learn(self._spread_s(member))
        self.appended(leader)

    def _spread_s(self, member: SimConsensus) -> float:
        usual_s = self.rng.uniform(0.0, 0.002 if member is self.leader else 0.015)
        return usual_s + (self.slow.get(member.node_id, 0.0) if member is not self.leader else 0)

    # -- elections -------------------------------------------------------------------------------

    def want_election(self, within_s: tuple[float, float] = (0.1, 0.8)) -> None:
        if self._election is None:
            self._election = self.loop.call_later(self.rng.uniform(*within_s), self._elect, None)

    def elect(self, target: str | None) -> bool:
        """Depose the leader now, in favour of `target` or of anybody else."""
        if self._election is not None:
            self._election.cancel()
        return self._elect(target)

    def _elect(self, target: str | None) -> bool:
        self._election = None
        candidates = self.connected()
        if len(candidates) * 2 <= self.size:
            self.want_election((0.2, 0.6))
            return False
        if target is not None:
            candidates = [member for member in candidates if member.node_id == target]
        elif self.leader is not None and self.is_effective(self.leader):
            return False  # the partition healed before anybody stood up
        if not candidates:
            return False
        winner = self.rng.choice(candidates)
        survivors = self._survivors()
        old, self.leader = self.leader, winner
        self.term += self.rng.randint(1, 2)
        self.elections += 1
        if old is not None and old is not winner and old.alive:
            old.deposed = True
            if old.node_id not in self.isolated:
                old.hear_leader(self.rng.uniform(0.0, 0.05))
        winner.lead(self.term, survivors)
        for member in self.connected():
            if member not in (winner, old):
                member.hear_leader(self.rng.uniform(0.0, 0.05))
        return True

    def _survivors(self) -> list[bytes]:
        """What of the old leader's uncommitted tail the new leader has: any prefix."""
        if self.leader is None:
            return []
        reached = []
        for proposal in self.leader.tail:
            if not proposal.reachable:
                break
            reached.append(proposal)
        kept = reached[: self.rng.randint(0, len(reached))]
        for proposal in kept:
            proposal.survived = True
        return [proposal.entry for proposal in kept]

    # -- faults ----------------------------------------------------------------------------------

    def isolate(self, node_id: str) -> None:
        """Cut one member off from the others."""
        self.isolated.add(node_id)
        member = self.members[node_id]
        if self.leader is member:
            self.want_election((0.3, 1.2))
        if member.alive:
            member.lost_quorum(self.rng.uniform(0.5, 3.0))
        self._check_quorum()

    def heal(self, node_id: str) -> None:
        self.isolated.discard(node_id)
        leader = self.leader
        for member in self.connected():
            member.hear_leader(self.rng.uniform(0.0, 0.1))
            member.learn(self.rng.uniform(0.0, 0.2))
        if leader is None or not self.is_effective(leader):
            self.want_election()
        else:
            self.appended(leader)

    def mend(self) -> None:
        """Commits, answers and deliveries are as fast and sure as they can be from now on."""
        self.stalled_until_s = self.refusing_until_s = self.forgetting_until_s = 0.0
        self.slow_disks_until_s = 0.0
        self.slow.clear()
        if self._commit_timer is not None:
            self._commit_timer.cancel()
            self._commit_timer = None
        if self.leader is not None:
            self.appended(self.leader)

    def died(self, member: SimConsensus) -> None:
        if self.leader is member:
            self.want_election()
        self._check_quorum()

    def _check_quorum(self) -> None:
        leader = self.leader
        if leader is not None and leader.alive and not self.has_quorum():
            leader.lost_quorum(self.rng.uniform(0.5, 3.0))


def unsettled_outcome(rng: Random, proposal: Proposal) -> Outcome:
    """How a deposed leader ends a proposal: refused only if it provably is in no log."""
    provable = not proposal.index and not proposal.survived and not proposal.reachable
    return Outcome.REFUSED if provable and rng.random() < 0.5 else Outcome.UNKNOWN
