"""Watches this node's clock: compares it with the other members' and says aloud what is wrong.

The guarded clock refuses a jump by itself, at the look that sees it; this actor asks the others who
is right, so that a new leader knows at once. It runs on every node, leader or not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from cluster.actors.actor import Actor
from cluster.actors.peerclocks import RETRY_MS, SAMPLE_MS, ClockAnswer, PeerClocks
from cluster.clock import Change, GuardedClock, Reading
from cluster.consensus import PeerStatus
from cluster.raft_state import RaftState

log = logging.getLogger("quorate.clock")

TICK_S = 1.0
HURRY_S = 0.05  # until a majority is known to agree, or HURRIED_MS have passed
HURRIED_MS = 10_000
ASK_S = 1.0
SETTLE_MS = 2_000  # a leader whose clock nobody can vouch for leads all the same after this

Standing = Literal["majority", "alone", "unconfirmed", "refused", "accepted"]
Ask = Callable[[str], Awaitable[ClockAnswer]]

_ENDS = {
    "returned": "it is back",
    "majority": "a majority of the members' clocks agree with it",
    "operator": "an operator accepted it",
}


class AskError(Exception):
    """A node did not tell its clock."""


class ClockWatch(Actor):
    """`ask(base_url)` gets another node's answer or raises AskError. `releases` and `version` are
    what this node tells about itself."""

    name = "clockwatch"
    mailbox_max = 1

    def __init__(
        self, raft: RaftState, clock: GuardedClock, ask: Ask, releases: str = "", version: str = ""
    ) -> None:
        super().__init__()
        self._raft = raft
        self._clock = clock
        self._ask = ask
        self._handle: asyncio.TimerHandle | None = None
        self._began_ms = 0
        self._held_since_ms: int | None = None
        self._is_ahead = False
        self._differing: dict[str, str] = {}
        self.peers = PeerClocks(clock.guard.bound_ms)
        self.releases = releases
        self.version = version
        raft.hold_epoch(self.may_lead)
        raft.on_leader(lambda leader: self.wake())

    # -- life ------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        self._began_ms = self._clock.elapsed_ms()
        self.wake()

    async def on_stop(self) -> None:
        self._cancel()

    async def receive(self, message: Any) -> None:
        self._cancel()
        await self._round()
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(HURRY_S if self._in_hurry() else TICK_S, self.wake)

    def wake(self) -> None:
        """Look at the clocks now."""
        self.tell("look")

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _in_hurry(self) -> bool:
        ran_ms = self._clock.elapsed_ms() - self._began_ms
        return not self._clock.guard.is_vouched and not self._is_alone() and ran_ms < HURRIED_MS

    def _is_alone(self) -> bool:
        return self._raft.voters() == (self._raft.node_id,)

    # -- a round ---------------------------------------------------------------------------------

    async def _round(self) -> None:
        before = self._clock.read()
        self._tell_changes()
        peers = self._raft.consensus.peers()
        due = self.peers.due(peers, before.elapsed_ms, self._pause_ms())
        if due:
            await asyncio.gather(*(self._sample(peer) for peer in due))
        self.peers.keep(peer.id for peer in peers)
        voters = self._raft.voters()
        guard = self._clock.guard
        since_ms = guard.refused_at_ms if guard.is_refusing else 0
        votes = self.peers.votes(self._raft.node_id, voters, self._clock.elapsed_ms(), since_ms)
        self._clock.consult(votes)
        self._tell_changes()
        self._watch_replicated_time()
        self._watch_releases()

    def _pause_ms(self) -> int:
        """Between two questions to the same peer."""
        guard = self._clock.guard
        if self._in_hurry():
            return round(HURRY_S * 1000)
        return RETRY_MS if guard.is_refusing or not guard.is_vouched else SAMPLE_MS

    async def _sample(self, peer: PeerStatus) -> None:
        sent_ms = self._clock.elapsed_ms()
        self.peers.asked(peer.id, sent_ms)
        try:
            async with asyncio.timeout(ASK_S):
                answer = await self._ask(f"http://{peer.meta['http']}")
        except (AskError, TimeoutError) as error:
            log.debug("the clock of %s could not be read: %s", peer.id, error)
            return
        self.peers.answered(peer.id, answer, sent_ms, self._clock.elapsed_ms())

    # -- what is wrong ---------------------------------------------------------------------------

    def _tell_changes(self) -> None:
        for change in self._clock.changes():
            level = logging.ERROR if change.kind in ("refused", "outvoted") else logging.WARNING
            log.log(level, _sentence(change))

    def _watch_replicated_time(self) -> None:
        ahead_ms, bound_ms = self.replicated_ahead_ms(), self._clock.guard.bound_ms
        was_ahead, self._is_ahead = self._is_ahead, ahead_ms > bound_ms
        if self._is_ahead and not was_ahead:
            log.error("%s", _ahead(ahead_ms))
        elif was_ahead and not self._is_ahead:
            log.warning("the clock has caught up with the cluster's time")

    def _watch_releases(self) -> None:
        differing = self.differing_releases()
        if differing != self._differing:
            self._differing = differing
            if differing:
                log.warning("%s", self._releases_sentence(differing))
            else:
                log.info("all nodes compute schedules with %s", self.releases)

    def _releases_sentence(self, differing: dict[str, str]) -> str:
        others = "; ".join(f"{peer}: {releases}" for peer, releases in sorted(differing.items()))
        return (
            f"nodes compute schedules with different releases (here {self.releases}; {others}): "
            "install the same ones everywhere"
        )

    # -- leading ---------------------------------------------------------------------------------

    def may_lead(self) -> bool:
        """Whether time may be stamped into the log: a majority vouches for this clock, there is
        nobody to ask, or nobody who answered in time."""
        if self._clock.guard.is_vouched or self._is_alone():
            return True
        now_ms = self._clock.elapsed_ms()
        if self._held_since_ms is None:
            self._held_since_ms = now_ms
            self.wake()
        waited_ms = now_ms - self._held_since_ms
        if waited_ms >= SETTLE_MS:
            log.warning("leading by this node's own clock: no majority of clocks agree with any")
            return True
        return False

    # -- facts -----------------------------------------------------------------------------------

    def answer(self) -> ClockAnswer:
        """For another node that asks."""
        reading = self._clock.read()
        return ClockAnswer(
            node_id=self._raft.node_id,
            wall_ms=reading.wall_ms,
            now_ms=reading.now_ms,
            refused=self._clock.guard.is_refusing,
            version=self.version,
            releases=self.releases,
        )

    def accept(self) -> bool:
        """The operator says that this node's wall clock is right; False when it was not refused."""
        accepted = self._clock.accept()
        self._tell_changes()
        return accepted

    def gauges(self) -> dict[str, float]:
        """For `/metrics`."""
        off_ms = self._clock.read().off_ms
        return {
            "clock_refused": self.is_refusing,
            "clock_jump_seconds": off_ms / 1000 if self.is_refusing else 0.0,
            "clock_replicated_ahead_seconds": self.replicated_ahead_ms() / 1000,
            "clock_releases_differ": bool(self.differing_releases()),
        }

    def read(self) -> Reading:
        return self._clock.read()

    @property
    def is_refusing(self) -> bool:
        return self._clock.guard.is_refusing

    @property
    def bound_ms(self) -> int:
        return self._clock.guard.bound_ms

    @property
    def standing(self) -> Standing:
        """How this node's time came about: alone, majority (agrees), refused (the wall clock is),
        accepted (by an operator, against the majority) or unconfirmed."""
        guard = self._clock.guard
        if guard.is_refusing:
            return "refused"
        if guard.is_accepted:
            return "accepted"
        if self._is_alone():
            return "alone"
        return "majority" if guard.is_vouched else "unconfirmed"

    def replicated_ahead_ms(self) -> int:
        """How far the cluster's time is ahead of this node's; 0 when it is behind, as it should."""
        return max(0, self._raft.state.now_ms - self._clock.now_ms())

    def skews_s(self) -> dict[str, float]:
        """How far the wall clock of each other member is ahead of this node's."""
        reading = self._clock.read()
        own_ms = reading.wall_ms - reading.elapsed_ms
        known = self.peers.all().items()
        return {peer_id: (peer.base_ms - own_ms) / 1000 for peer_id, peer in known}

    def differing_releases(self) -> dict[str, str]:
        """Those of members that compute schedules with other releases than this node."""
        return {
            peer_id: known.answer.releases
            for peer_id, known in self.peers.all().items()
            if known.answer.releases != self.releases
        }

    def warnings(self) -> list[str]:
        """What an operator should know, one sentence each."""
        found = []
        off_ms, guard = self._clock.read().off_ms, self._clock.guard
        if guard.is_refusing:
            found.append(
                f"the wall clock of this node is {_seconds(off_ms)} off and refused: correct it, "
                "or `quorate cluster clock --accept` if it is right"
            )
        if guard.is_accepted:
            found.append("the clock of this node was accepted against the majority's")
        ahead_ms = self.replicated_ahead_ms()
        if ahead_ms > guard.bound_ms:
            found.append(_ahead(ahead_ms))
        if differing := self.differing_releases():
            found.append(self._releases_sentence(differing))
        return found


def _seconds(ms: int) -> str:
    return f"{ms / 1000:+.1f} s"


def _ahead(ahead_ms: int) -> str:
    return (
        f"the cluster's time is {_seconds(ahead_ms)} ahead of this node's: nothing becomes due "
        "until the clock has caught up"
    )


def _sentence(change: Change) -> str:
    if change.kind == "refused":
        return (
            f"the wall clock jumped by {_seconds(change.off_ms)}: refused, time runs on without "
            "it; `quorate cluster clock --accept` follows it"
        )
    if change.kind == "outvoted":
        return (
            f"the wall clock is {_seconds(change.off_ms)} off those of a majority: refused, this "
            f"node runs at their time (moved by {_seconds(change.moved_ms)})"
        )
    return (
        f"the wall clock is followed again, {_ENDS[change.kind]}; time moved by "
        f"{_seconds(change.moved_ms)}"
    )
