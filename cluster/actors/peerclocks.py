"""What this node knows of the other members' clocks.

A sample is one question over HTTP: the other's wall clock against the middle of the round trip
here. It is kept as a base (see `cluster/clock/guard.py`), which stays right when this node's own
wall clock jumps. A slow answer says too little about when it was given and is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from cluster.clock import Votes
from cluster.consensus import PeerStatus

SAMPLE_MS = 10_000  # between two questions to a peer
RETRY_MS = 1_000  # when the last one brought nothing, or a clock is in doubt
FRESH_MS = 35_000  # three lost answers
ROUND_TRIP_MS_MAX = 1_000


class ClockAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says about itself when another one asks. `now_ms` is the time that it runs at,
    `releases` what its plans of schedules are computed with."""

    node_id: str
    wall_ms: int
    now_ms: int
    refused: bool = False
    version: str = ""
    releases: str = ""


@dataclass
class PeerClock:
    """One other member. `taken_ms` and `asked_ms` are on this node's elapsed clock."""

    answer: ClockAnswer
    base_ms: int
    round_trip_ms: int
    taken_ms: int


class PeerClocks:
    """The latest sample of every other member."""

    def __init__(self, bound_ms: int) -> None:
        self._round_trip_ms_max = min(ROUND_TRIP_MS_MAX, bound_ms // 2)
        self._known: dict[str, PeerClock] = {}
        self._asked_ms: dict[str, int] = {}
        self.rejected_total = 0

    def due(
        self, peers: Iterable[PeerStatus], elapsed_ms: int, pause_ms: int = SAMPLE_MS
    ) -> list[PeerStatus]:
        """Whom to ask now; who is not known waits no longer than RETRY_MS."""
        found = []
        for peer in peers:
            known = self._known.get(peer.id)
            is_fresh = known is not None and elapsed_ms - known.taken_ms < SAMPLE_MS + RETRY_MS
            wait_ms = pause_ms if is_fresh else min(pause_ms, RETRY_MS)
            asked_ms = self._asked_ms.get(peer.id)
            is_due = asked_ms is None or elapsed_ms - asked_ms >= wait_ms
            if peer.connected and "http" in peer.meta and is_due:
                found.append(peer)
        return found

    def asked(self, peer_id: str, elapsed_ms: int) -> None:
        self._asked_ms[peer_id] = elapsed_ms

    def answered(self, peer_id: str, answer: ClockAnswer, sent_ms: int, got_ms: int) -> None:
        """Take a sample, unless it was slow or another node answered."""
        round_trip_ms = got_ms - sent_ms
        if answer.node_id != peer_id or not 0 <= round_trip_ms <= self._round_trip_ms_max:
            self.rejected_total += 1
            return
        base_ms = answer.wall_ms - (sent_ms + got_ms) // 2
        self._known[peer_id] = PeerClock(answer, base_ms, round_trip_ms, got_ms)

    def keep(self, ids: Iterable[str]) -> None:
        """Forget who is no member any more."""
        members = set(ids)
        for book in (self._known, self._asked_ms):
            for peer_id in [known for known in book if known not in members]:
                del book[peer_id]

    def votes(
        self, node_id: str, voters: tuple[str, ...], elapsed_ms: int, since_ms: int = 0
    ) -> Votes:
        """The clocks that count: read lately, and asked at `since_ms` or later."""
        others = (peer_id for peer_id in voters if peer_id != node_id)
        fresh = [known for known in map(self._known.get, others) if known is not None]
        bases = (
            known.base_ms
            for known in fresh
            if elapsed_ms - known.taken_ms <= FRESH_MS
            and known.taken_ms - known.round_trip_ms >= since_ms
        )
        return Votes(tuple(bases), len(voters), node_id in voters, since_ms)

    def get(self, peer_id: str) -> PeerClock | None:
        return self._known.get(peer_id)

    def all(self) -> Mapping[str, PeerClock]:
        return self._known
