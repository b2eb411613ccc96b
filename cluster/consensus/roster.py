"""The configuration in effect on this node: the newest one in its log.

Follows the log step by step: an append may bring a new configuration, a truncation takes it back, a
snapshot replaces all. Everything that counts members asks here, so nothing holds a stale list.
"""

from __future__ import annotations

from collections.abc import Callable

from .guards import majority
from .members import Members
from .refusals import IN_DOUBT


class Roster:
    """`voters` and `others` leave this node out; both are sorted."""

    def __init__(self, node_id: str, base: Members, base_index: int) -> None:
        self._node_id = node_id
        self._log = [(base_index, base)]  # oldest first; the first is never taken back
        self.on_change: Callable[[], None] = lambda: None
        self._derive()

    def _derive(self) -> None:
        self.index, self.current = self._log[-1]
        voters = self.current.voters
        self.voters = tuple(peer for peer in voters if peer != self._node_id)
        self.others = tuple(peer for peer in self.current.ids if peer != self._node_id)
        self.learners = tuple(peer for peer in self.others if peer not in self.voters)
        self.is_voter = self._node_id in voters
        # Something is left to do for the leader: a folder to learn, a vote to give.
        self.is_unsettled = any(
            m.standing == "joining" or not m.folder for m in self.current.members
        )
        self.is_alone = voters == (self._node_id,)
        self.quorum = majority(len(voters))
        # Whoever an older configuration names may be needed until the newer one is committed.
        known = {peer for _, members in self._log for peer in members.ids}
        self.links = tuple(sorted(known - {self._node_id}))

    def is_majority(self, peers: set[str] | frozenset[str]) -> bool:
        """Whether these nodes, this one among them if it is named, are a majority of the voters."""
        return len(peers & set(self.current.voters)) >= self.quorum

    def at(self, index: int) -> Members:
        """The configuration as of an applied entry."""
        return next(members for at, members in reversed(self._log) if at <= index)

    def refusal(self, applied: int, node_id: str, folder: str) -> str:
        """Why a node with this data folder must not be talked with, or "".

        Whose folder is whose holds from its place in the log, as all of a configuration does: a
        node that has just started has applied nothing, and must not count a wiped disk meanwhile.
        Only what is applied is said to be so for good; the rest is in doubt, and tried again.
        """
        settled = self.at(applied).refusal(node_id, folder)
        if settled == "removed":
            return settled
        if self.current.find(node_id) is None:  # its removal may yet be taken back
            return IN_DOUBT if settled else ""
        latest = self.current.refusal(node_id, folder)
        if latest in ("", settled):
            return latest
        return IN_DOUBT

    def expects_this(self, folder: str, *, joins: bool) -> bool:
        """This node is to be added with this folder, or was: who knows it otherwise is behind. One
        that joins may itself be behind, with a state from before it was added: it has that from a
        member that took it for who it is."""
        own = self.current.find(self._node_id)
        return joins or (own is not None and own.folder == folder)

    # The log moves --------------------------------------------------------------------------

    def appended(self, index: int, members: Members) -> None:
        self._log.append((index, members))
        self._changed()

    def cut_from(self, first: int) -> None:
        """Entries from `first` on are gone."""
        kept = [self._log[0], *(entry for entry in self._log[1:] if entry[0] < first)]
        if len(kept) < len(self._log):
            self._log = kept
            self._changed()

    def settled(self, index: int) -> None:
        """Entries up to `index` are applied: older configurations will never matter again."""
        if len(self._log) > 1 and self._log[1][0] <= index:
            newest = max(position for position, (at, _) in enumerate(self._log) if at <= index)
            del self._log[:newest]
            self._changed()

    def restored(self, index: int, members: Members, *, keep_later: bool) -> None:
        """A snapshot holds everything up to `index`; what the log has behind it may stay."""
        later = [entry for entry in self._log if entry[0] > index] if keep_later else []
        self._log = [(index, members), *later]
        self._changed()

    def _changed(self) -> None:
        self._derive()
        self.on_change()
