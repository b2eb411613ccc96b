"""Which live jobs match a filter, newest first, without sorting the table.

A page from the middle looks for its ids; the first, or a sparse one, walks the table. It stops when
the counts say that no other job can match. What remains is 50 ns per row that does not match, and
less than that for a whole block.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from heapq import merge

from cluster.machine.jobtable import JobTable

PROBES_MAX = 10_000


class Listing:
    """`kinds` are the ids of the objects, `left` says how many jobs are of these kinds."""

    def __init__(
        self, jobs: JobTable, kinds: Collection[int], states: Collection[int], left: int
    ) -> None:
        self._jobs = jobs
        self._kinds = kinds
        self._states = states
        self._left = left

    def below(self, top: int, next_id: int) -> Iterator[int]:
        """Ids of those below `top`, the greatest first."""
        apart = self._apart(top)
        return merge(self._rows(top, next_id), apart, self._in_blocks(top), reverse=True)

    def _apart(self, top: int) -> list[int]:
        kinds = self._kinds
        rows = [r for r in self._jobs.apart.values() if id(r.kind) in kinds and r.id < top]
        self._left -= len(rows)
        return sorted([row.id for row in rows if row.state in self._states], reverse=True)

    def _rows(self, top: int, next_id: int) -> Iterator[int]:
        rows, kinds, states = self._jobs.rows, self._kinds, self._states
        for job_id in self._row_ids(top, next_id):
            if self._left <= 0:
                return
            row = rows[job_id]
            if id(row.kind) in kinds:
                self._left -= 1
                if row.state in states:
                    yield job_id

    def _row_ids(self, top: int, next_id: int) -> Iterator[int]:
        rows = self._jobs.rows
        if top < next_id and len(rows) > PROBES_MAX:
            bottom = max(top - PROBES_MAX, 0)
            yield from (job_id for job_id in range(top - 1, bottom, -1) if job_id in rows)
            top = bottom + 1
        yield from (job_id for job_id in reversed(rows) if job_id < top)

    def _in_blocks(self, top: int) -> Iterator[int]:
        blocks = self._jobs.blocks
        for first in blocks.irange(maximum=top, inclusive=(True, False), reverse=True):
            if self._left <= 0:
                return
            block = blocks[first]
            if id(block.kind) in self._kinds:
                self._left -= block.live
                if block.state in self._states:
                    yield from (i for i in reversed(list(block.ids())) if i < top)
