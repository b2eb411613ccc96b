"""What this node's history lacks, as the event loop knows it; the file learns it a moment later.

`complete_to` is how far the log has come by here; what was skipped on the way is a gap. Both go to
the file in the transaction that brings the rows, so that after a crash the file tells how far it
is to be trusted, and no further.
"""

from __future__ import annotations

from cluster.history.gaps import Gap, merged
from cluster.history.store import Standing


class Lacks:
    """Fed by the loop; `unwritten` moves to the writer's thread and comes back if that fails."""

    def __init__(self, standing: Standing) -> None:
        self.gaps = list(standing.gaps)
        self.unwritten: list[Gap] = []
        self.writing: list[Gap] = []
        # An earlier release did not note how far its file was complete: it is believed once.
        self._is_old = standing.complete_to is None
        self.complete_to = standing.complete_to or standing.index_last

    def came(self, entry: int) -> None:
        """All that log entries up to this one finished is here, or on its way."""
        self.complete_to = max(self.complete_to, entry)
        self._is_old = False

    def skip_to(self, entry: int, until_ms: int) -> bool:
        """The entries up to this one will not come by here. False when they have been here."""
        if self._is_old:
            self.came(entry)
        if entry <= self.complete_to:
            return False
        gap = Gap(self.complete_to + 1, 0, entry, until_ms)
        self.complete_to = entry
        self.unwritten.append(gap)
        self.gaps = merged([*self.gaps, gap])
        return True

    def pending(self) -> list[Gap]:
        """What the file may not know yet."""
        return [*self.writing, *self.unwritten]

    def learn(self, stored: list[Gap], pending_before: list[Gap]) -> None:
        """`stored` is what the file said; `pending_before` what was pending before it was asked."""
        self.gaps = merged([*stored, *pending_before, *self.pending()])
