"""What to do when another member refuses this node for its data folder.

Either that member knows better, and this node must not go on, or it is behind: it missed the
entries that replaced a lost folder by this one. It will not take them from the node it doubts, so
if that is the leader, one whom it knows has to lead until it has caught up.
"""

from __future__ import annotations

from .mesh import Refused
from .parts import Parts
from .pin import now
from .refusals import ENDS, IN_DOUBT, report_known_otherwise

DOUBT_HOLDS_S = 3.0  # it dials again at least that often
GIVE_WAY_AFTER_S = 0.5  # whom it doubts may have been told a moment before it hears of the entry
GIVE_WAY_AGAIN_S = 5.0


class Doubts:
    def __init__(self, parts: Parts) -> None:
        self._config = parts.config
        self._engine = parts.engine
        self._network = parts.network
        self._counters = parts.counters
        self._roster = parts.roster
        self._said: dict[str, float] = {}  # when a member last refused this node's folder
        self._since = 0.0
        self._gave_way_at = -GIVE_WAY_AGAIN_S

    def on_refused(self, event: Refused) -> str | None:
        """Why this node has to end, if so."""
        folder = self._network.folder(self._config.node_id)
        is_expected = self._roster.expects_this(folder, joins=self._config.join)
        if event.reason == IN_DOUBT or (event.reason == "other_folder" and is_expected):
            self._note(event.peer)
            report_known_otherwise(self._counters, event.peer)
        elif event.reason in ENDS:
            return ENDS[event.reason].format(event.peer)
        return None

    def _note(self, peer: str) -> None:
        at = now()
        if not self._doubters():
            self._since = at
        self._said[peer] = at

    def _doubters(self) -> set[str]:
        """Who said so lately, and has not answered since."""
        since = now() - DOUBT_HOLDS_S
        return {
            peer
            for peer in self._roster.others
            if max(since, self._engine.heard_from(peer)) < self._said.get(peer, since)
        }

    def successor(self) -> str | None:
        """Who should lead instead of this node, if it is time for that; at most every few s."""
        at = now()
        is_due = self._engine.is_leader() and at - self._gave_way_at > GIVE_WAY_AGAIN_S
        if not is_due or not (doubters := self._doubters()) or at - self._since < GIVE_WAY_AFTER_S:
            return None
        lately = at - self._config.election_min_ms / 1000
        fit = [
            peer
            for peer in self._roster.voters
            if peer not in doubters
            and self._network.epoch(peer)
            and self._engine.heard_from(peer) > lately
        ]
        if not fit:
            return None
        self._gave_way_at = at
        return max(fit, key=lambda peer: (self._engine.match_index(peer), peer))
