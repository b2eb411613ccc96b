"""What a node does when its disk is full: it stays a member, and takes on nothing that must grow.

Space for terms and votes is taken in advance, so it goes on voting. A follower takes no more
entries and says so; a leader takes no more proposals and hands over to a member with space, and
says why it refuses when a majority has none. Nobody campaigns on a full disk. All of it ends by
itself when space returns.
"""

from __future__ import annotations

import logging

from .interface import DISK_FULL
from .parts import Parts
from .pin import now
from .wire import NoSpace

logger = logging.getLogger("quorate.consensus.space")

WORD_HOLDS_S = 1.0  # a member says it again with every heartbeat
GIVE_WAY_AFTER_S = 0.2
GIVE_WAY_AGAIN_S = 5.0


class Space:
    def __init__(self, parts: Parts) -> None:
        self._config = parts.config
        self._is_heeded = parts.guards.on("b8_full_disk")
        self._engine = parts.engine
        self._journal = parts.journal
        self._network = parts.network
        self._outbox = parts.outbox
        self._counters = parts.counters
        self._roster = parts.roster
        self._said: dict[str, float] = {}  # when a member last said that it has no space
        self._full_since = 0.0
        self.log_is_stuck = False  # it may not be shortened and has become too long
        self._gave_way_at = -GIVE_WAY_AGAIN_S

    def look(self) -> None:
        """Once per run."""
        out = self._journal.disk_is_full or self.log_is_stuck
        is_full = out and self._is_heeded
        if is_full is self._counters.disk_full:
            return
        self._counters.disk_full = is_full
        if is_full:
            self._full_since = now()
            logger.error(
                "the disk of %s is full: no entries are taken until there is space",
                self._config.data_dir,
            )
        else:
            logger.warning("the disk of %s has space again", self._config.data_dir)

    @property
    def is_out(self) -> bool:
        """This node's own disk is full."""
        return self._counters.disk_full

    def is_out_at(self, peer: str) -> bool:
        return now() - self._said.get(peer, -WORD_HOLDS_S) < WORD_HOLDS_S

    def tell(self, peer: str) -> None:
        """To a leader that wants to be rid of something."""
        self._outbox.send(peer, NoSpace(self._engine.term()))

    def on_told(self, peer: str, message: NoSpace) -> None:
        """It is alive, which is all that this says about its log."""
        if self._engine.is_leader() and message.term == self._engine.term():
            self._said[peer] = now()
            self._engine.note_answer(peer)

    def may_campaign(self) -> bool:
        """A lone node leads whatever happens: somebody has to say what is wrong."""
        return not self.is_out or self._roster.is_alone

    def refusal(self) -> str | None:
        """Why a leader takes no proposals, if so."""
        if self.is_out:
            return f"{DISK_FULL}: on the leader, {self._config.node_id}"
        out = [peer for peer in self._roster.voters if self.is_out_at(peer)]
        if not self._roster.is_majority({self._config.node_id, *self._roster.voters} - set(out)):
            return f"{DISK_FULL}: on {', '.join(out)}"
        return None

    def successor(self) -> str | None:
        """Who should lead instead of this node, if it is time for that; at most every few s."""
        at = now()
        is_due = (
            self.is_out and self._engine.is_leader() and at - self._full_since > GIVE_WAY_AFTER_S
        )
        if not is_due or at - self._gave_way_at < GIVE_WAY_AGAIN_S:
            return None
        lately = at - self._config.election_min_ms / 1000
        fit = [
            peer
            for peer in self._roster.voters
            if self._network.epoch(peer)
            and not self.is_out_at(peer)
            and self._engine.heard_from(peer) > lately
        ]
        if not fit:
            return None
        self._gave_way_at = at
        return max(fit, key=lambda peer: (self._engine.match_index(peer), peer))
