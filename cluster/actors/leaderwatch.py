"""Says when this node has known no leader for a while, whom it reaches, and when that is over.

Elections are over in less than a second, so only what lasts is told. Nothing runs meanwhile but one
timer, and none at all while somebody leads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from cluster.raft_state import RaftState

log = logging.getLogger("quorate.leaderwatch")

PATIENCE_S = 3.0
AGAIN_S = 60.0


class LeaderWatch:
    """On the event loop that calls `start()`."""

    def __init__(self, raft: RaftState) -> None:
        self._raft = raft
        self._since_s: float | None = None  # by the loop's clock, no leader since then
        self._is_told = False
        self._timer: asyncio.TimerHandle | None = None
        raft.on_leader(lambda _: self._look())

    def start(self) -> None:
        self._look()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def without_s(self) -> float:
        """How long no leader has been known by now."""
        if self._since_s is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._since_s

    def _look(self) -> None:
        leader_id = self._raft.leader_id
        if leader_id is None:
            if self._since_s is None:
                loop = asyncio.get_running_loop()
                self._since_s = loop.time()
                self._timer = loop.call_later(PATIENCE_S, self._tell)
            return
        if self._is_told:
            log.warning("%s leads, after %.1f s without a leader", leader_id, self.without_s())
        self._since_s, self._is_told = None, False
        self.stop()

    def _tell(self) -> None:
        self._is_told = True
        log.warning(
            "no leader for %.0f s, so nothing is accepted: %s",
            self.without_s(),
            "; ".join(self._reasons()),
        )
        self._timer = asyncio.get_running_loop().call_later(AGAIN_S, self._tell)

    def _reasons(self) -> Iterator[str]:
        """Whom this node reaches, which is what an operator looks for first."""
        peers, voters = self._raft.consensus.peers(), set(self._raft.voters())
        reached = [peer.id for peer in peers if peer.connected and peer.id in voters]
        missed = [peer.id for peer in peers if not peer.connected and peer.id in voters]
        count = len(reached) + (self._raft.node_id in voters)
        need = len(voters) // 2 + 1
        yield f"{count} of {len(voters)} voters are here, {need} are needed"
        if missed:
            yield f"not connected: {', '.join(missed)}"
