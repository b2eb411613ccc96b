"""Writes snapshots of the applied state without stopping the node: a forked child encodes it.

The child sees the state frozen at the fork, writes, syncs and exits; only then does the parent wait
for the machine's own history to be safe, name the file and let go of the log behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from .child import AsideWork
from .core import Core
from .disk import Disk
from .host import Host
from .interface import ReplicatedMachine, SnapshotError
from .members import Members
from .pin import now
from .snapfile import SnapshotFile, write_content
from .snapstore import TEMPORARY, SnapshotStore
from .storage import BufferedWriter

logger = logging.getLogger("quorate.consensus.snapshotter")

RETRY_AFTER_S = 10.0
LEADER_SHARE = 1.5  # the leader waits longer, so that followers snapshot first and not all at once
LOG_BYTES_FACTOR = 4  # a transfer may hold back the trimming of the log up to so many limits
HUNG_AFTER_S = 60.0  # a writer whose file has not grown for so long is given up
LOOK_EVERY_S = 1.0
HISTORY_WAIT_S = 60.0
STUCK_FACTOR = 8  # so many limits of log that may not be shortened are too many
REPLAYED_SHARE = 8  # what waits to be applied is at most this part of what a snapshot would cover


class Snapshotter:
    def __init__(
        self,
        core: Core,
        machine: ReplicatedMachine,
        store: SnapshotStore,
        disk: Disk,
        host: Host,
    ) -> None:
        self._core = core
        self._machine = machine
        self._store = store
        self._disk = disk
        self._host = host
        self._aside = host.aside()
        self._task: asyncio.Task[int] | None = None
        self._examination: asyncio.Task[None] | None = None
        self._closing = False
        self._not_before = 0.0
        self._newest_bytes = 0
        self.newest: SnapshotFile | None = None

    def remember(self, snapshot: SnapshotFile) -> None:
        if self.newest is not None and self.newest.index > snapshot.index:
            return  # a newer one was installed while this one was written
        self.newest = snapshot
        with contextlib.suppress(OSError):
            self._newest_bytes = self._store.size(snapshot)

    def consider(self) -> None:
        """Starts a snapshot when the journal has grown enough since the last one."""
        if self._task is not None or self._closing or now() < self._not_before:
            return
        # Writing more snapshot than journal would be worse than a longer replay.
        limit: float = max(self._core.config.snapshot_journal_bytes, self._newest_bytes // 2)
        if self._core.engine.is_leader():
            limit *= LEADER_SHARE
        if self._core.journal.grown_bytes >= limit and self._has_replayed():
            self._start()

    def _has_replayed(self) -> bool:
        """Most of the log behind the last snapshot is applied: one taken early in a replay covers
        next to nothing, and the next restart would replay as much again, and more every time."""
        core = self._core
        applied = core.engine.applied_index()
        before = self.newest.index if self.newest is not None else 1
        waiting = core.journal.last_index - applied
        return waiting * REPLAYED_SHARE <= applied - before

    async def take(self) -> int:
        """Takes one now (after a running one) and returns its index; SnapshotError says why not."""
        while self._task is not None:
            await asyncio.wait([self._task])
        if self._closing:
            raise SnapshotError("the node is stopping")
        task = self._start()
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise SnapshotError("the node is stopping") from None
            raise

    async def close(self) -> None:
        self.abort()
        tasks = [task for task in (self._task, self._examination) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def abort(self) -> None:
        self._closing = True
        self._aside.kill()
        for task in (self._examination, self._task):
            if task is not None:
                task.cancel()

    def _start(self) -> asyncio.Task[int]:
        self._task = asyncio.create_task(self._work())
        self._task.add_done_callback(self._done)
        return self._task

    def _done(self, task: asyncio.Task[int]) -> None:
        self._task = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        self._not_before = now() + RETRY_AFTER_S
        if not self._closing:
            self._core.counters.snapshots_failed += 1
            logger.error("no snapshot: %s", error)

    async def _work(self) -> int:
        core = self._core
        index = core.engine.applied_index()
        term = core.journal.term_at(index)
        if self.newest is not None and self.newest.index >= index:
            return self.newest.index
        if term is None:
            raise SnapshotError(f"entry {index} is not in the log")
        self._check_space()
        grown, core.journal.grown_bytes = core.journal.grown_bytes, 0
        temporary = self._store.folder / f"taking-{os.getpid()}{TEMPORARY}"
        try:
            members = core.roster.at(index)
            await self._encode(
                temporary,
                lambda is_wanted: self._write(temporary, index, term, members, is_wanted),
            )
            # Before it gets its name: a restart begins at the newest, replaying nothing older.
            await self._history_is_safe(index)
            snapshot = await self._host.offload(lambda: self._publish(temporary, index, term))
        except BaseException:
            core.journal.grown_bytes += grown  # or the next try waits for as much growth again
            with contextlib.suppress(OSError):
                self._store.storage.remove(
                    temporary
                )  # the journal may need the very space it takes
            raise
        core.counters.snapshots_taken += 1
        self.remember(snapshot)
        if not self._closing and not core.halted:
            self._compact()
        return index

    async def _encode(self, path: Path, work: AsideWork) -> None:
        """Begins at once, before the state can move on, and waits as long as the file grows."""
        watch = asyncio.create_task(self._watch(path))
        try:
            await self._aside.run(work)
        except SnapshotError as error:
            if watch.done():
                raise SnapshotError(f"the writer did nothing for {HUNG_AFTER_S:g} s") from error
            raise
        finally:
            watch.cancel()

    async def _watch(self, path: Path) -> None:
        """Ends a writer that hangs instead of failing: one task, one child, until it is dead."""
        size, grown_at = -1, now()
        while now() - grown_at < HUNG_AFTER_S:
            await asyncio.sleep(LOOK_EVERY_S)
            before = size
            with contextlib.suppress(OSError):
                size = self._store.bytes_of(path)
            if size != before:
                grown_at = now()
        self._aside.kill()

    async def _history_is_safe(self, index: int) -> None:
        """The log may grow while it is not, but not for ever: then this node takes no more."""
        core, config = self._core, self._core.config
        try:
            async with asyncio.timeout(HISTORY_WAIT_S):
                await self._machine.before_truncate(index)
        except Exception as error:
            limit = STUCK_FACTOR * max(config.snapshot_journal_bytes, config.trailing_bytes)
            core.space.log_is_stuck = core.journal.log_bytes > limit
            core.counters.errors["history_behind"] += 1
            why = str(error) or f"no answer within {HISTORY_WAIT_S:g} s"
            raise SnapshotError(
                f"the history is not written up to entry {index}, so {core.journal.log_bytes} "
                f"bytes of log are kept: {why}"
            ) from error
        core.space.log_is_stuck = False

    # Damage found while running ------------------------------------------------------------

    def suspect(self, index: int) -> None:
        """A follower did not accept it: read it once more, and replace it if it is damaged."""
        if self._examination is None and not self._closing:
            self._examination = asyncio.create_task(self._examine(index))
            self._examination.add_done_callback(self._examined)

    def _examined(self, task: asyncio.Task[None]) -> None:
        self._examination = None
        if not task.cancelled() and task.exception() is not None:
            logger.error("no snapshot to send: %s", task.exception())

    async def _examine(self, index: int) -> None:
        replicator, store = self._core.replicator, self._store
        damage = await self._host.offload(lambda: store.damage_of(index))
        if not damage:
            replicator.trust(index)
            return
        self._core.counters.errors["rotten_snapshot"] += 1
        logger.error("%s; taking a new one", damage)
        store.rotten.add(index)
        replicator.drop_senders()
        if self.newest is not None and self.newest.index == index:
            self.newest = None
        newer = await self.take()
        store.rotten.discard(index)
        if newer != index:  # else it has taken its place
            await self._host.offload(lambda: store.discard(index))
        replicator.drop_senders()

    def _check_space(self) -> None:
        """A try that must fail would take the journal's last bytes first, and the node with it."""
        folder = self._store.folder
        free = self._store.storage.free_bytes(folder)
        if free < self._newest_bytes:
            raise SnapshotError(
                f"{folder} has {free} bytes left, the last one took {self._newest_bytes}; "
                "free space on this disk"
            )

    def _write(
        self,
        path: Path,
        index: int,
        term: int,
        members: Members,
        is_wanted: Callable[[], bool],
    ) -> None:
        with contextlib.closing(BufferedWriter(self._store.storage, path)) as file:
            write_content(
                file,
                cluster=self._store.cluster_id,
                index=index,
                term=term,
                members=members,
                chunks=self._machine.snapshot(),
                keep_going=is_wanted,
            )
            file.finish()

    def _publish(self, temporary: Path, index: int, term: int) -> SnapshotFile:
        """Reads the file back before the log behind it is given up."""
        self._store.validate_as(temporary, index, term)
        return self._store.publish(temporary, index, term)

    def _compact(self) -> None:
        """Keeps a tail in memory for slow followers, and on disk what the older snapshot needs."""
        core = self._core
        assert self.newest is not None
        journal, config = core.journal, core.config
        keep = journal.trailing_index(
            self.newest.index, config.trailing_entries, config.trailing_bytes
        )
        if not core.guards.on("c5_trailing_log"):
            keep = self.newest.index
        if not core.guards.on("c5_keep_transfer"):
            core.replicator.drop_senders()
        limit = LOG_BYTES_FACTOR * max(config.snapshot_journal_bytes, config.trailing_bytes)
        in_transfer = core.replicator.lowest_sender_index()
        if in_transfer is not None and journal.log_bytes < limit:
            keep = min(keep, in_transfer)
        journal.trim(keep)
        kept = self._store.all()
        if kept:
            self._disk.delete_before(min(snapshot.index for snapshot in kept))
