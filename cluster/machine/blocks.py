"""Blocks: like jobs of one submission that wait, as columns instead of rows.

A pending job that nobody has touched differs from its neighbours in its id and its payload only. So
a block keeps one blob of payloads with the places where they end, and everything else once. A job
gets a row of its own when something happens to it alone: it is assigned, cancelled, it expires.
From then on it is gone from its block, for good.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, compress

from msgspec import Struct

from cluster.machine.rows import Job, JobExtra, SpecRow
from cluster.timerwheel import Timer

BLOCK_JOBS_MIN = 8  # for fewer, the block costs as much as their rows
# The last job of a block keeps its blob alive, up to PACK_FACTOR times what it needs.
BLOCK_JOBS_MAX = 1_000
BLOCK_BYTES_MAX = 256 << 10
PACK_FACTOR = 8


class Block(Struct, gc=False):
    """Jobs `id` to `id + count - 1`, but for those that are gone.

    `ends[i]` to `ends[i + 1]` is the payload of the i-th. `extra`, if there is one, is what each of
    them brings along: bounds of its life and their timers, one of all. `timer` waits for the whole
    block to be due. `shown` are rows that a ready queue handed out ahead of time.
    """

    id: int
    kind: SpecRow
    payloads: bytes
    ends: array[int]
    state: int
    created_ms: int
    run_at_ms: int
    live: int
    packed: int  # so many were live when the blob was written
    gone: bytearray | None = None  # a byte per job; None: all are here
    timer: Timer | None = None
    extra: JobExtra | None = None
    shown: dict[int, Job] | None = None

    @property
    def end(self) -> int:
        """The id after the last."""
        return self.id + len(self.ends) - 1

    def holds(self, job_id: int) -> bool:
        at = job_id - self.id
        if not 0 <= at < len(self.ends) - 1:
            return False
        return self.gone is None or not self.gone[at]

    def next_live(self, job_id: int) -> int:
        """The first job from this id on, 0 if there is none."""
        at = job_id - self.id
        if self.gone is not None:
            at = self.gone.find(0, at)
            return self.id + at if at >= 0 else 0
        return job_id if at < len(self.ends) - 1 else 0

    def next_gone(self, job_id: int, end: int) -> int:
        """The first job from this id on that is not here, `end` if all before that are."""
        if self.gone is None:
            return end
        at = self.gone.find(1, job_id - self.id, end - self.id)
        return self.id + at if at >= 0 else end

    def ids(self) -> Iterator[int]:
        """Who is here, in order."""
        ids = range(self.id, self.end)
        return iter(ids) if self.gone is None else compress(ids, map((0).__eq__, self.gone))

    def run(self, ids: Sequence[int], at: int) -> int:
        """How many of `ids` from position `at` on follow each other and are here."""
        first = ids[at]
        count = self.next_gone(first, min(first + len(ids) - at, self.end)) - first
        if ids[at : at + count] != list(range(first, first + count)):
            count = next(n for n in range(count + 1) if ids[at + n] != first + n)
        return count

    def look(self, job_id: int) -> Job:
        """The job as a row. Only to be read: the block does not know it."""
        shown = self.shown.get(job_id) if self.shown is not None else None
        return shown if shown is not None else self._rows(job_id, 1)[0]

    def show(self, first: int, count: int) -> list[Job]:
        """The rows that these jobs will leave in, as `leave` gives the same ones."""
        if self.shown is None:
            self.shown = {}
        shown = self.shown
        return [shown.setdefault(row.id, row) for row in self._rows(first, count)]

    def leave(self, first: int, count: int) -> list[Job]:
        """These jobs, all here, get rows of their own. An `extra` of the block goes along."""
        rows = self._rows(first, count)
        shown = self.shown
        if shown:
            rows = [shown.pop(row.id, row) for row in rows]
        if self.gone is None:
            self.gone = bytearray(len(self.ends) - 1)
        self.gone[first - self.id : first - self.id + count] = b"\x01" * count
        self.live -= count
        if 0 < self.live <= self.packed // PACK_FACTOR:
            self.pack()
        return rows

    def _rows(self, first: int, count: int) -> list[Job]:
        blob, at = self.payloads, first - self.id
        ends = self.ends[at : at + count + 1].tolist()
        kind, state, created_ms, run_at_ms = self.kind, self.state, self.created_ms, self.run_at_ms
        rows = [
            Job(job_id, kind, blob[start:end], state, created_ms, run_at_ms)
            for job_id, start, end in zip(range(first, first + count), ends, ends[1:], strict=False)
        ]
        extra = self.extra
        if extra is not None:
            for row in rows:
                row.extra = extra.__copy__()  # type: ignore[attr-defined]  # every Struct has it
        return rows

    def pack(self) -> None:
        """Leave the payloads out that are gone."""
        self.payloads, self.ends = self.packed_columns()
        self.packed = self.live

    def packed_columns(self) -> tuple[bytes, array[int]]:
        """Blob and ends without the payloads that are gone, which count as empty."""
        if self.gone is None or self.live == self.packed:
            return self.payloads, self.ends
        blob, ends = self.payloads, self.ends
        pieces = [
            b"" if gone else blob[ends[at] : ends[at + 1]] for at, gone in enumerate(self.gone)
        ]
        return b"".join(pieces), ends_of(pieces)


def ends_of(payloads: Sequence[bytes]) -> array[int]:
    return array("I", accumulate(map(len, payloads), initial=0))


def cuts(payloads: Sequence[bytes]) -> list[int]:
    """Where to cut so many payloads into blocks: the positions between pieces, none too large."""
    count = len(payloads)
    if count <= BLOCK_JOBS_MAX and sum(map(len, payloads)) <= BLOCK_BYTES_MAX:
        return [0, count]
    ends = list(accumulate(map(len, payloads), initial=0))
    found = [0]
    while (at := found[-1]) < count:
        fitting = bisect_right(ends, ends[at] + BLOCK_BYTES_MAX) - 1
        found.append(max(min(fitting, at + BLOCK_JOBS_MAX, count), at + 1))
    return found
