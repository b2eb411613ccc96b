"""One member's view of the simulated log, behind the interface of `cluster.consensus`."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable

from chaos.sim.ledger import Ledger, Proposal, unsettled_outcome
from cluster.consensus import (
    ConsensusConfig,
    Outcome,
    PeerStatus,
    ProposalCallback,
    Role,
    TransferError,
)
from cluster.consensus.interface import ReplicatedMachine, RoleCallback
from cluster.consensus.members import Members, first_members

PROPOSAL_TIMEOUT_S = 10.0
EXPIRE_CHECK_S = 0.5
TAIL_MAX = 20_000
REFUSAL_PROBABILITY = 0.5
LOST_ANSWER_PROBABILITY = 0.3

Snapshot = tuple[int, list[bytes]]


class SimConsensus:
    """One incarnation of one member; a restart makes a new one.

    Everything of this member runs in `context`, so that a crash can find its tasks."""

    def __init__(
        self,
        ledger: Ledger,
        config: ConsensusConfig,
        machine: ReplicatedMachine,
        on_role: RoleCallback,
        fail: Callable[[str], None],
    ) -> None:
        self.node_id = config.node_id
        self.context = contextvars.copy_context()
        self.role = Role.FOLLOWER
        self.term = 0
        self.leader_id: str | None = None
        self.commit_index = 0
        self.applied_index = 0
        self.alive = False
        self.deposed = False
        self.tail: deque[Proposal] = deque()  # appended here, not committed
        self.awaiting: deque[Proposal] = deque()  # committed, not applied here
        self.snapshot: Snapshot | None = None
        self._ledger = ledger
        self._config = config
        self._machine = machine
        self._on_role = on_role
        self._fail = fail
        self._expiry: asyncio.TimerHandle | None = None

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Recover from the snapshot, if there is one, and join."""
        if self.snapshot is not None:
            index, chunks = self.snapshot
            self._machine.restore(iter(chunks))
            self.applied_index = self.commit_index = index
        self.alive = True
        ledger = self._ledger
        ledger.members[self.node_id] = self
        if self.node_id not in ledger.isolated:
            self.learn(ledger.rng.uniform(0.0, 0.05))
            self.hear_leader(ledger.rng.uniform(0.0, 0.1))
        if ledger.leader is None or not ledger.is_effective(ledger.leader):
            ledger.want_election()
        else:
            ledger.appended(ledger.leader)  # with this member there may be a quorum again

    async def stop(self) -> None:
        self.abort()

    def abort(self) -> None:
        """As kill -9: nobody is told anything any more."""
        self.alive = False
        if self._expiry is not None:
            self._expiry.cancel()
        self._ledger.died(self)

    def _later(self, delay_s: float, work: Callable[..., None], *arguments: object) -> None:
        self._ledger.loop.call_later(delay_s, work, *arguments, context=self.context)

    # -- proposing -------------------------------------------------------------------------------

    def propose(self, entry: bytes, callback: ProposalCallback) -> None:
        ledger = self._ledger
        now_s = ledger.loop.time()
        refusing = now_s < ledger.refusing_until_s and ledger.rng.random() < REFUSAL_PROBABILITY
        if not self.alive:
            return
        if self.role is not Role.LEADER or len(self.tail) >= TAIL_MAX or refusing:
            self._later(0.0, self._call_back, callback, Outcome.REFUSED, "refused")
            return
        reachable = ledger.is_effective(self)
        proposal = Proposal(entry, callback, now_s, reachable)
        self.tail.append(proposal)
        ledger.appended(self)
        forgetting = now_s < ledger.forgetting_until_s
        if forgetting and ledger.rng.random() < LOST_ANSWER_PROBABILITY:
            self._later(0.0, self._end, proposal, Outcome.UNKNOWN, "the answer got lost")
        if self._expiry is None:
            self._expiry = ledger.loop.call_later(
                EXPIRE_CHECK_S, self._expire, context=self.context
            )

    def _expire(self) -> None:
        self._expiry = None
        if not self.alive:
            return
        limit_s = self._ledger.loop.time() - PROPOSAL_TIMEOUT_S
        for proposal in self.tail:
            if proposal.started_s < limit_s:
                self._end(proposal, Outcome.UNKNOWN, "timed out")
        if self.tail:
            self._expiry = self._ledger.loop.call_later(
                EXPIRE_CHECK_S, self._expire, context=self.context
            )

    def _end(self, proposal: Proposal, outcome: Outcome, result: object) -> None:
        if not proposal.ended and proposal.callback is not None:
            proposal.ended = True
            self._call_back(proposal.callback, outcome, result)

    def _call_back(self, callback: ProposalCallback, outcome: Outcome, result: object) -> None:
        if not self.alive:
            return
        try:
            callback(outcome, result)
        except Exception as error:
            self._fail(f"a proposal's callback raised {error!r}")

    # -- applying --------------------------------------------------------------------------------

    def learn(self, delay_s: float) -> None:
        """What is committed now reaches this member after `delay_s`."""
        self._later(delay_s, self._advance, len(self._ledger.entries))

    def _advance(self, commit_index: int) -> None:
        if not self.alive or (self.node_id in self._ledger.isolated):
            return
        self.commit_index = max(self.commit_index, commit_index)
        ended: list[tuple[Proposal, object]] = []
        while self.applied_index < self.commit_index:
            index = self.applied_index + 1
            result = self._machine.apply(self._ledger.entries[index - 1], index)
            self.applied_index = index
            while self.awaiting and self.awaiting[0].index <= index:
                ended.append((self.awaiting.popleft(), result))
        for proposal, result in ended:
            self._end(proposal, Outcome.APPLIED, result)

    def install(self, index: int, chunks: list[bytes]) -> None:
        """A leader's snapshot replaces this lagging member's state."""
        if self.alive and index > self.applied_index and self.role is not Role.LEADER:
            self._machine.restore(iter(chunks))
            self.snapshot = (index, chunks)
            self.applied_index = index
            self.commit_index = max(self.commit_index, index)

    # -- roles -----------------------------------------------------------------------------------

    def lead(self, term: int, inherited: list[bytes]) -> None:
        """Won an election; `inherited` is in this log from earlier terms, uncommitted."""
        self._give_up_proposals(keep_tail=False)
        self.deposed = False
        self.role, self.term, self.leader_id = Role.LEADER, term, self.node_id
        now_s = self._ledger.loop.time()
        self.tail.extend(Proposal(entry, None, now_s, True) for entry in inherited)
        self._tell_role()
        self._ledger.appended(self)
        self.learn(0.0)

    def hear_leader(self, delay_s: float) -> None:
        """The current term and leader reach this member after `delay_s`."""
        self._later(delay_s, self._heard)

    def _heard(self) -> None:
        ledger = self._ledger
        leader = ledger.leader
        if not self.alive or self.node_id in ledger.isolated or leader is None or leader is self:
            return
        if self.term < ledger.term or self.leader_id != leader.node_id:
            self._follow(ledger.term, leader.node_id)

    def lost_quorum(self, believes_s: float) -> None:
        """Cut off: a leader goes on believing in itself for a while."""
        self._later(believes_s, self._doubt)

    def _doubt(self) -> None:
        cut_off = self.node_id in self._ledger.isolated or not self._ledger.has_quorum()
        if self.alive and cut_off:
            self._follow(self.term, None)
            if self._ledger.leader is self:
                self._ledger.want_election()

    def _follow(self, term: int, leader_id: str | None) -> None:
        self.role, self.term, self.leader_id = Role.FOLLOWER, term, leader_id
        # Without a successor the tail stays: whoever wins next may inherit what followers hold.
        keep_tail = self._ledger.leader is self and not self.deposed
        if self._ledger.rng.random() < 0.5:
            self._tell_role()
            self._give_up_proposals(keep_tail)
        else:
            self._give_up_proposals(keep_tail)
            self._tell_role()

    def _give_up_proposals(self, keep_tail: bool) -> None:
        for proposal in [*self.awaiting, *self.tail]:
            outcome = unsettled_outcome(self._ledger.rng, proposal)
            self._later(0.0, self._end, proposal, outcome, "leadership lost")
        self.awaiting.clear()
        if not keep_tail:
            self.tail.clear()

    def _tell_role(self) -> None:
        self._later(0.0, self._told_role, self.role, self.term, self.leader_id)

    def _told_role(self, role: Role, term: int, leader_id: str | None) -> None:
        if self.alive:
            self._on_role(role, term, leader_id)

    # -- the rest of the interface ---------------------------------------------------------------

    @property
    def is_leader_ready(self) -> bool:
        return self.role is Role.LEADER

    def peers(self) -> list[PeerStatus]:
        return [
            PeerStatus(peer, self._hears(peer), {"http": peer, **self._meta(peer)}, 0, 0.0)
            for peer in self._config.peers
        ]

    def _hears(self, peer: str) -> bool:
        ledger = self._ledger
        member = ledger.members.get(peer)
        is_cut = not ledger.isolated.isdisjoint((peer, self.node_id))
        return member is not None and member.alive and not is_cut

    def _meta(self, peer: str) -> dict[str, str]:
        """What it said when it connected last."""
        member = self._ledger.members.get(peer)
        return member._config.meta if member is not None else {}

    def members(self) -> Members:
        return first_members([self.node_id, *self._config.peers])

    async def transfer_leadership(self, target: str | None, timeout_ms: int) -> str:
        others = [m.node_id for m in self._ledger.connected() if m is not self]
        if not self._ledger.is_effective(self) or not others:
            raise TransferError("nobody can take over")
        chosen = target or self._ledger.rng.choice(others)
        if not self._ledger.elect(chosen):
            raise TransferError(f"{chosen} did not take over")
        return chosen

    def status(self) -> dict[str, object]:
        return {"commit_index": self.commit_index, "applied_index": self.applied_index}
