"""What a simulated node stands on: a disk that takes its time, calls that last, links to others."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, TypeVar

from chaos.sim.raft.network import End, Fabric
from chaos.sim.raft.platter import Platter
from cluster.consensus.child import AsideWork
from cluster.consensus.counters import Counters
from cluster.consensus.disk import GroupCommit
from cluster.consensus.folder import JOURNAL_FOLDER
from cluster.consensus.host import OnDurable
from cluster.consensus.interface import ConsensusConfig, SnapshotError
from cluster.consensus.segments import Batch, SegmentFiles
from cluster.consensus.snapreceive import Arrived

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life

T = TypeVar("T")
NOBODY = contextvars.Context()  # for what happens to a node, not in it
FULL_RETRY_S = 0.1


class Pace:
    """How slow the machine of a node is; faults change it. Ranges in seconds."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.write_s = (0.00002, 0.0002)
        self.fsync_s = rng.choice(((0.0002, 0.001), (0.0005, 0.004), (0.002, 0.02)))
        self.call_s = (0.0005, 0.01)
        self.stall_s = 0.0  # the loop stands still for so long when a snapshot is restored
        self.apply_s = 0.0  # what the machine takes for one entry
        self.hangs = False  # an fsync that has begun does not end
        self.fails = False  # the next fsync fails

    def mend(self) -> None:
        self.fsync_s = (0.0002, 0.002)
        self.call_s = (0.0005, 0.01)
        self.stall_s = self.apply_s = 0.0
        self.hangs = self.fails = False

    def draw(self, bounds: tuple[float, float]) -> float:
        return self._rng.uniform(*bounds)


class SimDisk:
    """Drives the real segment files through virtual time: gather, write, sync, report."""

    def __init__(
        self,
        life: Life,
        files: SegmentFiles,
        platter: Platter,
        on_durable: OnDurable,
        on_error: Callable[[str], None],
    ) -> None:
        self._life = life
        self._pace = life.node.pace
        self._files = files
        self._commit = GroupCommit(files)
        self._platter = platter
        self._gathered: list[list[bytes]] = []  # copies: the files join the parts of a group
        self._on_durable = on_durable
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Batch | int] = deque()
        self._taken: list[Batch | int] = []
        self._is_busy = False
        self._closed = False
        self.is_flushed = False  # closed in good order, with everything on the disk

    @property
    def is_full(self) -> bool:
        return self._commit.is_full

    def write(self, batch: Batch) -> None:
        self._queue.append(batch)
        self._begin()

    def delete_before(self, index: int) -> None:
        self._queue.append(index)
        self._begin()

    def size_bytes(self) -> int:
        return self._files.size_bytes()

    def close(self) -> None:
        self._gather()
        self._commit.sync()
        self.is_flushed = not self._files.has_gathered
        self._files.note_durable()
        self.abandon()

    def abandon(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):  # the machine may be without power
            self._files.close()

    def _begin(self) -> None:
        if not self._is_busy and not self._closed:
            self._is_busy = True
            self._loop.call_later(self._pace.draw(self._pace.write_s), self._append)

    def _gather(self) -> None:
        tasks = list(self._queue)
        self._queue.clear()
        self._taken += tasks
        for task in tasks:
            if isinstance(task, Batch):
                self._gathered.append(list(task.parts))
                self._commit.gather(task)

    def _append(self) -> None:
        if self._closed:
            return
        self._gather()
        self._write()

    def _write(self) -> None:
        """What is written lies in the cache for a while: a power loss may tear it."""
        if self._closed:
            return
        try:
            if self._commit.write():
                self._loop.call_later(self._pace.draw(self._pace.fsync_s), self._sync)
            else:
                self._loop.call_later(FULL_RETRY_S, self._write)
        except OSError as error:
            self._fail(error)

    def _sync(self) -> None:
        if self._closed:
            return
        if self._pace.hangs:
            self._loop.call_later(0.02, self._sync)
            return
        try:
            if self._pace.fails:
                self._pace.fails = False
                raise OSError(5, "Input/output error")
            self._finish()
        except OSError as error:
            self._fail(error)

    def _finish(self) -> None:
        files = self._files
        last = self._commit.sync()
        if last is not None:
            for parts in self._gathered:
                self._platter.synced(parts)
            self._gathered = []
            self._on_durable(last, 0.001, files.fsyncs, files.bytes_written)
            if not files.has_spare:
                self._commit.reserve()
        for task in self._taken:
            if isinstance(task, int):
                files.delete_before(task)
        self._taken = []
        self._is_busy = False
        if self._queue:
            self._begin()
        else:
            self._tidy()

    def _tidy(self) -> None:
        """Again and again while the disk is full."""
        if self._closed or self._is_busy:
            return
        try:
            self._commit.tidy()
        except OSError as error:
            self._fail(error)
        if self._commit.is_full:
            self._loop.call_later(FULL_RETRY_S, self._tidy)

    def _fail(self, error: OSError) -> None:
        self._closed = True
        self._on_error(f"the journal cannot be written: {error}")


class SimAside:
    """The forked child: what it writes is the state of this moment, its end comes later."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def run(self, work: AsideWork) -> None:
        pace = self._life.node.pace
        try:
            work(lambda: True)
        except OSError as error:
            raise SnapshotError(str(error)) from error
        await asyncio.sleep(pace.draw(pace.call_s))

    def kill(self) -> None:
        """The task that waits for it is cancelled by whoever calls this."""


class SimHost:
    """`Host` of one node from its start to its end."""

    def __init__(self, life: Life, fabric: Fabric) -> None:
        self._life = life
        self._fabric = fabric
        self.timer_s = life.node.timer_s
        self.storage = life.node.storage
        self.end: End | None = None
        self.disk: SimDisk | None = None
        self.platter: Platter | None = None

    def open_network(
        self,
        config: ConsensusConfig,
        key: bytes,
        counters: Counters,
        wake: Callable[[], None],
    ) -> End:
        self.end = End(self._fabric, self._life, wake, config.meta)
        return self.end

    def epoch(self, peer: str) -> int:
        """Which connection with the peer is up, 0 for none."""
        return self.end.epoch(peer) if self.end is not None else 0

    @property
    def has_read_all(self) -> bool:
        """Whatever arrived so far was handled."""
        return self.end is None or not self.end.inbox

    def open_disk(
        self, files: SegmentFiles, on_durable: OnDurable, on_error: Callable[[str], None]
    ) -> SimDisk:
        assert self.end is not None
        folder = self._life.node.config.data_dir / JOURNAL_FOLDER
        self.platter = Platter(self.storage, folder, self.end.cluster_id)
        self.disk = SimDisk(self._life, files, self.platter, on_durable, on_error)
        return self.disk

    async def offload(self, job: Callable[[], T]) -> T:
        machine, pace = self._life.node, self._life.node.pace
        await asyncio.sleep(pace.draw(pace.call_s))
        if self._life.is_over:
            raise asyncio.CancelledError
        result = job()
        if pace.stall_s and isinstance(result, Arrived):
            machine.pause()
            machine.world.loop.call_later(pace.stall_s, machine.resume, context=NOBODY)
            await asyncio.sleep(0)
        return result

    def drop(self) -> None:
        """What the end of a process closes."""
        if self.end is not None:
            self.end.abort()
        if self.disk is not None:
            self.disk.abandon()
        self.storage.kill()

    def aside(self) -> SimAside:
        return SimAside(self._life)
