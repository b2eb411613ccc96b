"""Changes of membership, as the leader makes them: one at a time, catch-up before the vote.

A change is refused until the one before it is committed, and until an entry of the leader's own
term is (without that, two leaders could each commit a configuration the other does not know: Ongaro
on raft-dev, 2015). A new member first only listens; it gets its vote when its log has caught up, so
a quorum never waits for a copy. See docs/decisions/005.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from .interface import FatalError, MembershipError, Outcome, ProposalCallback
from .members import (
    Members,
    Standing,
    adding,
    binding,
    config_entry,
    is_single_step,
    promoting,
    removing,
)
from .parts import Parts
from .pin import now
from .proposals import Proposals
from .replicator import Replicator

logger = logging.getLogger("quorate.consensus.membership")

CAUGHT_UP_ENTRIES = 256  # a member that is so close to the end of the log will not delay a commit
HEARD_WITHIN_S = 1.0


class Membership:
    """`may_change` says whether this node leads, is ready, and takes proposals."""

    def __init__(
        self,
        parts: Parts,
        proposals: Proposals,
        replicator: Replicator,
        may_change: Callable[[], bool],
    ) -> None:
        self._config = parts.config
        self._engine = parts.engine
        self._journal = parts.journal
        self._network = parts.network
        self._guards = parts.guards
        self._counters = parts.counters
        self._roster = parts.roster
        self._proposals = proposals
        self._replicator = replicator
        self._may_change = may_change

    # On request ----------------------------------------------------------------------------

    def add(self, node_id: str, standing: Standing, callback: ProposalCallback) -> None:
        """MembershipError says why nothing changes; else the callback tells how it ended."""
        self._check_ready()
        for member in self._roster.current.members:
            if member.standing == "joining":
                raise MembershipError(
                    "change_pending", f"{member.id} is joining; wait for it or remove it first"
                )
        self._enter(adding(self._roster.current, node_id, standing), callback)

    def remove(self, node_id: str, callback: ProposalCallback) -> None:
        self._check_ready()
        after = removing(self._roster.current, node_id)
        if node_id == self._config.node_id:
            raise MembershipError(
                "is_leader", f"{node_id} leads; hand leadership over before it is removed"
            )
        self._check_quorum(after)
        self._enter(after, callback)

    # By itself -----------------------------------------------------------------------------

    def consider(self) -> None:
        """Called in every run of the driver: binds folders, gives the vote to who caught up."""
        roster = self._roster
        if not roster.is_unsettled or not self._may_change() or self._is_changing():
            return
        folders = self._unbound()
        if folders:
            self._enter(binding(roster.current, folders), _ignore)
            return
        for member in roster.current.members:
            if member.standing == "joining" and self._has_caught_up(member.id):
                logger.info("%s has caught up and votes from now on", member.id)
                self._enter(promoting(roster.current, member.id), _ignore)
                return

    def _unbound(self) -> dict[str, str]:
        """Members whose data folder is not known yet, but which are connected, and answer: a dead
        connection may be that of an earlier process, whose folder was emptied since."""
        found = {}
        for member in self._roster.current.members:
            answers = member.id == self._config.node_id or self._replicator.acked(member.id) > 0
            if not member.folder and answers and (folder := self._network.folder(member.id)):
                found[member.id] = folder
        return found

    def _has_caught_up(self, peer: str) -> bool:
        if not self._guards.on("a7_catch_up"):
            return True
        if not self._network.epoch(peer):
            return False
        if now() - self._engine.heard_from(peer) > HEARD_WITHIN_S:
            return False
        acked = self._replicator.acked(peer)
        return acked > 0 and self._journal.last_index - acked <= CAUGHT_UP_ENTRIES

    # Steps ---------------------------------------------------------------------------------

    def _is_changing(self) -> bool:
        """The newest configuration is not committed yet, or the next turn commits what a majority
        of the voters until now holds: counted by one configuration, committed by it."""
        if self._replicator.is_commit_due():
            return True
        if not self._guards.on("a7_one_change"):
            return False
        return self._roster.index > self._engine.commit_index()

    def _check_ready(self) -> None:
        if not self._engine.is_leader():
            raise MembershipError("not_leader", "only the leader changes the members")
        if not self._may_change():
            raise MembershipError(
                "change_pending",
                "leadership is being taken over or handed over; try again",
                is_brief=True,
            )
        if self._is_changing():
            raise MembershipError(
                "change_pending",
                "the last change of members is not committed yet; try again",
                is_brief=True,
            )

    def _check_quorum(self, after: Members) -> None:
        """Refuses what could never be committed: it would leave the cluster without a leader."""
        voters = after.voters
        alive = [
            voter for voter in voters if voter == self._config.node_id or self._network.epoch(voter)
        ]
        if len(alive) * 2 <= len(voters):
            missing = ", ".join(voter for voter in voters if voter not in alive)
            raise MembershipError(
                "no_majority",
                f"of the voters that would be left, {missing} cannot be reached, so nothing could "
                "be committed any more; bring it back, or remove it first",
            )

    def _enter(self, members: Members, callback: ProposalCallback) -> None:
        before = self._roster.current
        if not is_single_step(before, members) or self._config.node_id not in members.voters:
            raise FatalError(f"an unsafe change of members: {before} to {members}")
        index = self._engine.append(config_entry(members))
        self._proposals.enter(index, self._engine.term(), callback)
        self._counters.member_changes += 1
        logger.info("members %d at entry %d: %s", members.epoch, index, members.members)


def _ignore(outcome: Outcome, result: object) -> None:
    """A step that is taken again if it was lost."""
