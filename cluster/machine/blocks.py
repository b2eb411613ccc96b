"""Blocks: like jobs of one submission that wait, as columns instead of rows.

A pending job that nobody has touched differs from its neighbours in its id and its payload only. So
a block keeps one blob of payloads with the places where they end, and everything else once. A job
gets a row of its own when something happens to it alone: it is assigned, cancelled, it expires.
From then on it is gone from its block, for good.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, compress, pairwise, repeat
from typing import Union

from msgspec import Struct

from cluster.machine import lifecycle
from cluster.machine.rows import Job, JobExtra, SpecRow
from cluster.timerwheel import Timer

BLOCK_JOBS_MIN = 8  # for fewer, the block costs as much as their rows
# The last job of a block keeps its blob alive, up to PACK_FACTOR times what it needs.
BLOCK_JOBS_MAX = 1_000
BLOCK_BYTES_MAX = 256 << 10
PACK_FACTOR = 8

Ends = Union["array[int]", range]  # a range says that all payloads are of one length


class Block(Struct, gc=False):
    """Jobs `id` to `id + count - 1`, but for those that are gone.

    `ends[i]` to `ends[i + 1]` is the payload of the i-th. `extra`, if there is one, is what each of
    them brings along: bounds of its life and their timers, one of all. `timer` waits for the whole
    block to be due. `shown` are rows that a ready queue handed out ahead of time.
    """

    id: int
    kind: SpecRow
    payloads: bytes
    ends: Ends
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

    def run(self, ids: Sequence[int], at: int) -> list[int]:
        """Those of `ids` from position `at` on that follow each other and are here."""
        first = ids[at]
        count = self.next_gone(first, min(first + len(ids) - at, self.end)) - first
        found, expected = list(ids[at : at + count]), range(first, first + count)
        if found != list(expected):
            del found[next(n for n in range(count) if found[n] != expected[n]) :]
        return found

    def look(self, job_id: int) -> Job:
        """The job as a row. Only to be read: the block does not know it."""
        shown = self.shown.get(job_id) if self.shown is not None else None
        return shown if shown is not None else self._rows((job_id,))[0]

    def show(self, ids: Sequence[int]) -> list[Job]:
        """The rows that these jobs will leave in, as `leave` gives the same ones."""
        rows = self._rows(ids)
        if self.shown is None:
            self.shown = {}
        shown = self.shown
        if not shown.keys().isdisjoint(ids):
            return [shown.setdefault(row.id, row) for row in rows]
        shown.update(zip(ids, rows, strict=True))
        return rows

    def leave(self, ids: Sequence[int]) -> list[Job]:
        """These jobs, a `run`, get rows of their own. An `extra` of the block goes along."""
        rows = self._leaving(ids)
        if rows is None:
            rows = self._rows(ids)
        self._book_gone(ids)
        return rows

    def start(
        self, ids: Sequence[int], worker_ids: Sequence[int], started_ms: int, timer: Timer
    ) -> list[Job]:
        """As `leave`, for a ready block: their first attempts begin, each at the worker beside it.
        A row that is made as it will be costs half as much as one that is changed."""
        rows = self._leaving(ids)
        if rows is None:
            rows = self._rows(ids, lifecycle.RUNNING, 1, worker_ids, started_ms, timer)
        else:
            for row, worker_id in zip(rows, worker_ids, strict=True):
                row.state, row.attempt, row.timer = lifecycle.RUNNING, 1, timer
                row.worker_id, row.started_ms = worker_id, started_ms
        self._book_gone(ids)
        return rows

    def _leaving(self, ids: Sequence[int]) -> list[Job] | None:
        """Their rows, if any of them was shown."""
        shown = self.shown
        if not shown or shown.keys().isdisjoint(ids):
            return None
        return [shown.pop(i) if i in shown else self._rows([i])[0] for i in ids]

    def _book_gone(self, ids: Sequence[int]) -> None:
        if self.gone is None:
            self.gone = bytearray(len(self.ends) - 1)
        at, count = ids[0] - self.id, len(ids)
        self.gone[at : at + count] = b"\x01" * count
        self.live -= count
        if 0 < self.live <= self.packed // PACK_FACTOR:
            self.pack()

    def _rows(
        self,
        ids: Sequence[int],
        state: int = -1,
        attempt: int = 0,
        worker_ids: Iterable[int] = repeat(0),
        started_ms: int = 0,
        timer: Timer | None = None,
    ) -> list[Job]:
        blob, at = self.payloads, ids[0] - self.id
        ends = self.ends[at : at + len(ids) + 1]
        rows = list(
            map(
                Job,
                ids,
                repeat(self.kind),
                [blob[start:end] for start, end in pairwise(ends)],
                repeat(self.state if state < 0 else state),
                repeat(self.created_ms),
                repeat(self.run_at_ms),
                repeat(attempt),
                repeat(0),
                worker_ids,
                repeat(started_ms),
                repeat(timer),
            )
        )
        extra = self.extra
        if extra is not None:
            for row in rows:
                row.extra = extra.__copy__()  # type: ignore[attr-defined]  # every Struct has it
        return rows

    def pack(self) -> None:
        """Leave the payloads out that are gone."""
        self.payloads, self.ends = self.packed_columns()
        self.packed = self.live

    def packed_columns(self) -> tuple[bytes, Ends]:
        """Blob and ends without the payloads that are gone, which count as empty."""
        if self.gone is None or self.live == self.packed:
            return self.payloads, self.ends
        blob, ends = self.payloads, self.ends
        pieces = [
            b"" if gone else blob[ends[at] : ends[at + 1]] for at, gone in enumerate(self.gone)
        ]
        return b"".join(pieces), ends_of(list(map(len, pieces)))


def ends_of(lengths: Sequence[int]) -> Ends:
    """Where payloads of these lengths end in their blob, from 0 on."""
    width, count = lengths[0], len(lengths)
    if width and lengths.count(width) == count:
        return range(0, width * count + 1, width)
    return array("I", accumulate(lengths, initial=0))


def cuts(lengths: Sequence[int]) -> list[int]:
    """Where to cut payloads of these lengths into blocks: the positions between pieces, none too
    large."""
    count = len(lengths)
    if count <= BLOCK_JOBS_MAX and sum(lengths) <= BLOCK_BYTES_MAX:
        return [0, count]
    ends = list(accumulate(lengths, initial=0))
    found = [0]
    while (at := found[-1]) < count:
        fitting = bisect_right(ends, ends[at] + BLOCK_BYTES_MAX) - 1
        found.append(max(min(fitting, at + BLOCK_JOBS_MAX, count), at + 1))
    return found
