"""Brings what this node's history lacks from the other members, slowly.

Runs on every node and sleeps while nothing lacks. A piece is asked of one member at a time, checked
and written before the next one; a member that dies, lacks the piece itself or sends a damaged one
is left for the next. What is written is recorded with it, so that a restart or another member goes
on where this one stopped. A stretch that nobody has is told of once, and asked for now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from cluster.actors.actor import Actor
from cluster.consensus import PeerStatus
from cluster.history import History, HistoryError
from cluster.history.gaps import Place, between, within
from cluster.history.parcel import ParcelError, Seal
from cluster.raft_state import RaftState

log = logging.getLogger("quorate.fetcher")

RETRY_FIRST_S, RETRY_MAX_S = 1.0, 60.0
BUSY_S = 1.0
ASK_S = 15.0
ROW_BYTES = 100  # a row costs at least as much as this many bytes, whatever it shrank to
BUSY_MAX = 120  # answers in a row that say so, then another member is asked
DAMAGED_MAX = 3  # pieces in a row, then another member is asked

Activity = Literal["complete", "waiting", "fetching", "unavailable"]
Where = tuple[Place, int]  # from a place in the log up to an entry


class AskError(Exception):
    """A member did not give what it was asked for."""


class AskLaterError(AskError):
    """It will give it, but not now."""


class Held(Struct):
    """What a member says of its own history: `gaps` as (first, last) entries."""

    cluster_id: str
    complete_to: int
    gaps: list[tuple[int, int]]


class Source(Protocol):
    """How other members are asked. Every method may raise AskError; the caller sets deadlines."""

    async def held(self, base_url: str) -> Held: ...

    async def piece(self, base_url: str, start: Place, last_index: int, since_ms: int) -> bytes: ...

    async def close(self) -> None:
        """Until it is asked again."""


class Fetcher(Actor):
    """`bytes_per_second` 0: nothing is fetched."""

    name = "fetcher"
    mailbox_max = 1

    def __init__(
        self,
        raft: RaftState,
        history: History,
        source: Source,
        secret: str | None,
        bytes_per_second: float,
    ) -> None:
        super().__init__()
        self._raft = raft
        self._history = history
        self._source = source
        self._secret = secret
        self._bytes_per_second = bytes_per_second
        self._handle: asyncio.TimerHandle | None = None
        self._retry_s = RETRY_FIRST_S
        self._not_before_s = 0.0
        self._told_unavailable = False
        self.activity: Activity = "complete" if history.is_complete else "waiting"
        self.source_id = ""  # the member that is being asked
        self.last_error = ""
        self.counts = dict.fromkeys(("pieces_fetched", "pieces_refused", "sources_failed"), 0)
        history.on_gap(self.wake)

    def gauges(self) -> dict[str, float]:
        """For `/metrics`."""
        return {f"history_{name}": float(count) for name, count in self.counts.items()}

    @property
    def cluster_id(self) -> str:
        return self._raft.consensus.cluster_id

    def seal(self) -> Seal:
        """What pieces of this cluster's history are sealed with, here and by those who give."""
        return Seal(self.cluster_id, self._secret)

    # -- life ------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        # From now on the file says how far it is complete, so that others may ask for it.
        with contextlib.suppress(HistoryError):
            await self._history.flushed(self._raft.applied_index)
        self.wake()

    async def on_stop(self) -> None:
        self._cancel()
        self.source_id = ""
        await self._source.close()

    def wake(self) -> None:
        """Look at what lacks now."""
        self.tell("look")

    async def receive(self, message: Any) -> None:
        self._cancel()
        if self._history.lacks:
            await self._history.exchange.forget_expired(self._history.kept_since_ms())
        if not self._history.lacks:
            self.activity = "complete"
            return
        if not self._bytes_per_second:
            self.activity = "waiting"
            return
        # What is new comes first: a node that catches up has no time for the past.
        progress = not self._raft.caught_up or await self._round()
        if self._history.lacks:
            self._retry_s = RETRY_FIRST_S if progress else min(2 * self._retry_s, RETRY_MAX_S)
            self._handle = asyncio.get_running_loop().call_later(self._retry_s, self.wake)
            return
        self.activity, self._retry_s, self._told_unavailable = "complete", RETRY_FIRST_S, False
        self.last_error = ""
        log.info("the history is complete: %s", self._told())

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    # -- a round ---------------------------------------------------------------------------------

    async def _round(self) -> bool:
        """Asks every member once, those that do not lead first; True if anything was fetched."""
        peers = sorted(self._raft.consensus.peers(), key=self._leads)
        fetched = answered = 0
        for peer in peers:
            if not (peer.connected and "http" in peer.meta):
                continue
            self.source_id = peer.id
            try:
                fetched += await self._from(f"http://{peer.meta['http']}")
                answered += 1
            except (AskError, HistoryError, TimeoutError) as error:
                self.counts["sources_failed"] += 1
                self.last_error = f"{peer.id}: {error or 'no answer in time'}"
                log.info("history could not be fetched from %s", self.last_error)
            finally:
                self.source_id = ""
            if not self._history.lacks:
                break
        self.activity = "waiting"
        if answered == len(peers) and self._history.lacks:
            self.activity = "unavailable"
            self._tell_unavailable()
        return bool(fetched)

    def _leads(self, peer: PeerStatus) -> bool:
        return peer.id == self._raft.leader_id

    async def _from(self, base_url: str) -> int:
        """All that one member has of what lacks; the number of pieces."""
        async with asyncio.timeout(ASK_S):
            held = await self._source.held(base_url)
        if held.cluster_id != self.cluster_id:
            raise AskError("this is not a member of this cluster")
        pieces = 0
        for start, last_index in self._wanted(held):
            pieces += await self._stretch(base_url, start, last_index)
        return pieces

    def _wanted(self, held: Held) -> Sequence[Where]:
        stretches = list(between(held.complete_to, held.gaps))
        return [where for gap in self._history.lacks for where in within(gap, stretches)]

    async def _stretch(self, base_url: str, start: Place, last_index: int) -> int:
        """Piece after piece of what one member holds without a gap."""
        pieces = damaged = busy = 0
        since_ms = self._history.kept_since_ms()
        self.activity = "fetching"
        while start.entry <= last_index:
            await self._pause()
            try:
                async with asyncio.timeout(ASK_S):
                    sealed = await self._source.piece(base_url, start, last_index, since_ms)
                taken = await self._history.exchange.take(self.seal(), start, sealed)
            except AskLaterError as error:
                self._spend(BUSY_S)
                busy += 1
                if busy == BUSY_MAX:
                    raise AskError(str(error)) from error
                continue
            except ParcelError:
                self.counts["pieces_refused"] += 1
                damaged += 1
                if damaged == DAMAGED_MAX:
                    raise
                continue
            pieces, damaged, busy = pieces + 1, 0, 0
            self.counts["pieces_fetched"] += 1
            self._spend(max(len(sealed), taken.rows * ROW_BYTES) / self._bytes_per_second)
            start = taken.end
        return pieces

    # -- pace ------------------------------------------------------------------------------------

    async def _pause(self) -> None:
        """Until what was fetched is paid for."""
        wait_s = self._not_before_s - asyncio.get_running_loop().time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _spend(self, seconds: float) -> None:
        now_s = asyncio.get_running_loop().time()
        self._not_before_s = max(self._not_before_s, now_s) + seconds

    # -- telling ---------------------------------------------------------------------------------

    def _told(self) -> str:
        counts = self._history.exchange.counts
        return f"{counts['rows_fetched']} jobs in {counts['bytes_fetched']} bytes were fetched"

    def _tell_unavailable(self) -> None:
        if self._told_unavailable:
            return
        self._told_unavailable = True
        stretches = ", ".join(
            f"{gap.first_index} to {gap.last_index}" for gap in self._history.lacks
        )
        log.warning("no member has the history of log entries %s", stretches)
