"""Folds occurrences that are not launched into few records: reason, first, last, how many."""

from __future__ import annotations

from cluster.plan import Missed

RECORDS_MAX = 100  # then one a reason, however they alternate


class Records:
    """Runs of one reason, in the order in which they were added."""

    __slots__ = ("_of_reason", "_rows")

    def __init__(self) -> None:
        self._rows: list[tuple[str, int, int, int]] = []
        self._of_reason: dict[str, int] = {}

    def add(self, reason: str, first_ms: int, last_ms: int, count: int = 1) -> None:
        """Must come after everything that was added before."""
        rows = self._rows
        place = len(rows) - 1
        if place >= 0 and rows[place][0] != reason:
            place = self._of_reason.get(reason, -1) if place + 1 >= RECORDS_MAX else -1
        if place >= 0:
            _, start_ms, _, before = rows[place]
            rows[place] = (reason, start_ms, last_ms, before + count)
        else:
            self._of_reason[reason] = len(rows)
            rows.append((reason, first_ms, last_ms, count))

    def take(self) -> list[tuple[str, int, int, int]]:
        """All rows; none are left."""
        rows, self._rows = self._rows, []
        self._of_reason = {}
        return rows

    def all(self) -> list[Missed]:
        return [Missed(*row) for row in self._rows]
