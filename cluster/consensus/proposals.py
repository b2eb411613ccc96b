"""Every proposal ends exactly once: applied, refused (never in a log) or unknown.

Holds what waits to enter the log and what is in the log uncommitted, both bounded. Callbacks are
collected here and called by the driver between two steps of the engine, where they can do no harm.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

from .counters import Counters
from .guards import Guards
from .interface import BUSY, ConsensusConfig, Outcome, ProposalCallback
from .pin import now

logger = logging.getLogger("quorate.consensus.proposals")


@dataclass(slots=True)
class Proposal:
    entry: bytes
    callback: ProposalCallback
    started: float
    size: int = 0
    index: int = 0
    term: int = 0
    is_own: bool = False


class Proposals:
    """Not thread-safe: lives on the loop."""

    def __init__(self, config: ConsensusConfig, guards: Guards, counters: Counters) -> None:
        self._config = config
        self._guards = guards
        self._counters = counters
        self._calls_outside = guards.on("a11_callbacks_outside")
        self._queued: deque[Proposal] = deque()
        self._in_log: deque[Proposal] = deque()  # by index
        self._ended: deque[tuple[Proposal, Outcome, object]] = deque()
        self._bytes = 0
        self._own = 0  # entries of the leader itself, in `_in_log` too; they count in no bound

    def __len__(self) -> int:
        return len(self._queued) + len(self._in_log) - self._own

    @property
    def has_queued(self) -> bool:
        return bool(self._queued)

    @property
    def has_ended(self) -> bool:
        return bool(self._ended)

    def submit(self, entry: bytes, callback: ProposalCallback, refusal: str | None) -> None:
        """Queues the entry, or ends it as refused: for `refusal`, its size or the bounds."""
        proposal = Proposal(entry, callback, now(), len(entry))
        if refusal is None:
            refusal = self._no_room(len(entry))
        if refusal is not None:
            self._ended.append((proposal, Outcome.REFUSED, refusal))
            return
        self._counters.proposals += 1
        self._bytes += len(entry)
        self._queued.append(proposal)

    def next_queued(self) -> Proposal | None:
        return self._queued.popleft() if self._queued else None

    def enter(self, index: int, term: int, callback: ProposalCallback) -> None:
        """An entry that the leader put into the log by itself."""
        self._own += 1
        self._in_log.append(Proposal(b"", callback, now(), 0, index, term, is_own=True))

    def entered(self, proposal: Proposal, index: int, term: int) -> None:
        proposal.index, proposal.term = index, term
        proposal.entry = b""  # the log has it now
        self._in_log.append(proposal)

    def applied(self, index: int, term: int, result: object) -> None:
        """An entry was applied; whoever proposed it, or lost that index to it, is told."""
        if not self._in_log:
            return
        while self._in_log and self._in_log[0].index <= index:
            proposal = self._in_log.popleft()
            self._bytes -= proposal.size
            self._own -= proposal.is_own
            if (proposal.index, proposal.term) == (index, term):
                self._counters.commit.add(now() - proposal.started)
                self._ended.append((proposal, Outcome.APPLIED, result))
            else:
                self._ended.append((proposal, Outcome.REFUSED, "another entry took its place"))
        if not self._calls_outside:
            while self._ended:  # what the library does
                proposal, outcome, answer = self._ended.popleft()
                proposal.callback(outcome, answer)

    def leadership_lost(self, reason: str) -> None:
        """What is in a log may still commit under the next leader; what is queued cannot."""
        while self._in_log:
            self._ended.append((self._in_log.popleft(), Outcome.UNKNOWN, reason))
        while self._queued:
            self._ended.append((self._queued.popleft(), Outcome.REFUSED, reason))
        self._bytes = self._own = 0

    def expire(self) -> None:
        """Ends what waited too long; both queues are in order of submission."""
        if not self._guards.on("c6_deadline"):
            return
        limit = now() - self._config.proposal_timeout_ms / 1000
        while self._queued and self._queued[0].started < limit:
            proposal = self._queued.popleft()
            self._bytes -= proposal.size
            self._ended.append(
                (proposal, Outcome.REFUSED, f"{BUSY}: timed out before it was logged")
            )
        for proposal in self._in_log:
            if proposal.started >= limit:
                break
            if proposal.callback is not _told:
                self._ended.append(
                    (Proposal(b"", proposal.callback, 0.0), Outcome.UNKNOWN, "timed out")
                )
                proposal.callback = _told  # its place stays taken until the entry commits or dies

    def call_back(self) -> None:
        """Calls what has ended; a callback that raises is logged and hurts nobody."""
        while self._ended:
            proposal, outcome, result = self._ended.popleft()
            try:
                proposal.callback(outcome, result)
            except Exception:
                self._counters.errors["callback"] += 1
                logger.exception("a proposal's callback raised")

    def _no_room(self, size: int) -> str | None:
        config = self._config
        if size > config.entry_bytes_max:
            return f"the entry has {size} bytes, the limit is {config.entry_bytes_max}"
        if not self._guards.on("c8_bounds"):
            return None
        if len(self) >= config.uncommitted_entries_max:
            return f"{BUSY}: {len(self)} proposals for the quorum"
        if self._bytes + size > config.uncommitted_bytes_max:
            return f"{BUSY}: {self._bytes} bytes of proposals for the quorum"
        return None


def _told(outcome: Outcome, result: object) -> None:
    """Stands in for the callback of a proposal that has already ended."""
