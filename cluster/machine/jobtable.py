"""All live jobs, by id. Who holds them: rows, and blocks of those that nobody has touched.

Iterating goes through the rows in the order in which they came, then through the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from sortedcontainers import SortedDict

from cluster.machine.blocks import Block
from cluster.machine.rows import Job


class JobTable(Mapping[int, Job]):
    """As a mapping it shows any job; a job of a block as a row that is only to be read.

    `rows` came as rows, their ids grow. `apart` came out of a block, or were dead once: these stand
    in no order. `in_blocks` counts the rest.
    """

    __slots__ = ("apart", "blocks", "in_blocks", "rows")

    def __init__(self) -> None:
        self.rows: dict[int, Job] = {}
        self.apart: dict[int, Job] = {}
        self.blocks: SortedDict = SortedDict()  # id of the first job -> Block
        self.in_blocks = 0

    # -- looking ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.rows) + len(self.apart) + self.in_blocks

    def __contains__(self, job_id: object) -> bool:
        if job_id in self.apart or job_id in self.rows:
            return True
        return isinstance(job_id, int) and self.block_of(job_id) is not None

    def __iter__(self) -> Iterator[int]:
        yield from self.rows
        yield from self.apart
        for block in self.blocks.values():
            yield from block.ids()

    def __getitem__(self, job_id: int) -> Job:
        job = self.row(job_id)
        if job is not None:
            return job
        block = self.block_of(job_id)
        if block is None:
            raise KeyError(job_id)
        return block.look(job_id)

    def row(self, job_id: int) -> Job | None:
        """The row of a job that has one of its own."""
        return self.apart.get(job_id) or self.rows.get(job_id)

    def all_rows(self) -> Iterator[Job]:
        return chain(self.rows.values(), self.apart.values())

    def block_of(self, job_id: int) -> Block | None:
        """The block that the job is in."""
        at = self.blocks.bisect_right(job_id)
        if not at:
            return None
        block: Block = self.blocks.peekitem(at - 1)[1]
        return block if block.holds(job_id) else None

    # -- changing --------------------------------------------------------------------------------

    def add(self, job: Job) -> None:
        """A new job; its id is above all others."""
        self.rows[job.id] = job

    def add_block(self, block: Block) -> None:
        self.blocks[block.id] = block
        self.in_blocks += block.live

    def put_apart(self, job: Job) -> None:
        """A job lives again."""
        self.apart[job.id] = job

    def replace(self, job: Job) -> None:
        """The same job in another row."""
        rows = self.apart if job.id in self.apart else self.rows
        rows[job.id] = job

    def take_out(self, block: Block, rows: list[Job]) -> None:
        """These rows just left the block; one that is empty now goes. Whoever calls this sees to
        the block's timer."""
        self.in_blocks -= len(rows)
        if not block.live:
            del self.blocks[block.id]
        apart = self.apart
        for row in rows:
            apart[row.id] = row

    def remove(self, job_id: int) -> None:
        if self.apart.pop(job_id, None) is None:
            del self.rows[job_id]

    def clear_slowly(self) -> None:
        """Piece by piece: a million jobs freed at once would hold up every thread."""
        for rows in (self.rows, self.apart, self.blocks):
            while rows:
                rows.popitem()
