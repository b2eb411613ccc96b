"""A look inside one running node, for simulation and tests: facts only, in Raft's own words.

Says nothing of the engine, so whoever checks invariants with it keeps working under another one.
"""

from __future__ import annotations

from dataclasses import dataclass

from .consensus import Consensus
from .core import Core
from .interface import Role
from .journal import Journal
from .recovery import Entry

# (term, vote, role, commit, applied, last index, log generation, durable generation)
Mark = tuple[int, str | None, Role, int, int, int, int, int]


@dataclass(frozen=True)
class Probe:
    """Valid from the end of `Consensus.start()`."""

    core: Core
    journal: Journal

    @staticmethod
    def into(consensus: Consensus) -> Probe | None:
        """None before the node has recovered."""
        core = consensus._core
        return None if core is None else Probe(core, core.journal)

    def mark(self) -> Mark:
        """Differs whenever anything else here could."""
        engine, journal = self.core.engine, self.journal
        return (
            engine.term(),
            journal.getVotedForNodeId(),
            engine.role(),
            engine.commit_index(),
            engine.applied_index(),
            journal.last_index,
            journal.generation,
            journal.durable_generation,
        )

    # The log -------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """The point before the first entry that is held in memory."""
        return self.journal.first_index

    @property
    def last_index(self) -> int:
        return self.journal.last_index

    @property
    def durable_index(self) -> int:
        """Up to here the log would survive a loss of power at this moment."""
        return self.journal.durable_index

    @property
    def vote_generation(self) -> int:
        """Term and vote are durable as soon as `durable_generation` has come so far."""
        return self.journal.hard_state_generation

    @property
    def durable_generation(self) -> int:
        return self.journal.durable_generation

    def term_at(self, index: int) -> int | None:
        return self.journal.term_at(index)

    def entry_at(self, index: int) -> Entry:
        """(bytes, index, term), where the bytes begin with the kind of the entry."""
        return self.journal.entry_at(index)

    @property
    def awaits_install(self) -> bool:
        """A leader takes a silent follower for alive, as it has all of a snapshot."""
        return self.core.replicator.awaits_install()

    # Members -------------------------------------------------------------------------------

    @property
    def voters(self) -> tuple[str, ...]:
        """By the newest configuration in this node's log."""
        return self.core.roster.current.voters

    @property
    def members(self) -> tuple[str, ...]:
        return self.core.roster.current.ids

    def folder_of(self, node_id: str) -> str | None:
        """The data folder a member is known by, "" if by none so far, None for no member."""
        member = self.core.roster.current.find(node_id)
        return None if member is None else member.folder

    @property
    def members_are_durable(self) -> bool:
        """That configuration would survive a loss of power at this moment."""
        return self.core.roster.index <= self.journal.durable_index

    # A leader ------------------------------------------------------------------------------

    def counted(self, peer: str) -> int:
        """What the commit rule believes to be on the peer's disk."""
        return self.core.engine.match_index(peer)

    def acked(self, peer: str) -> int:
        """What the peer has acknowledged; the leader's own disk may lag behind it."""
        return self.core.replicator.acked(peer)

    @property
    def entries_sent(self) -> int:
        """To all followers together, repetitions included."""
        return self.core.counters.entries_sent

    @property
    def heard_leader_at(self) -> float:
        """When the last valid message of a leader was taken in, on this node's clock."""
        return self.core.election.last_heard

    @property
    def promised_vote(self) -> tuple[str, int]:
        """To whom, and for which term; the answer that says so may still wait for the disk."""
        return self.core.election.promised

    @property
    def waiting(self) -> int:
        """Proposals taken and not ended."""
        return len(self.core.proposals)

    @property
    def is_halted(self) -> bool:
        """It has stopped for good and says nothing more."""
        return self.core.halted

    # Trouble -------------------------------------------------------------------------------

    def errors(self) -> dict[str, int]:
        """Counters that stay at zero in a cluster whose members and disks are honest."""
        return dict(self.core.counters.errors)
