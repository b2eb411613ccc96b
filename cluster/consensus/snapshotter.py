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
        if self._task is not None:
            await asyncio.wait([self._task])

    def abort(self) -> None:
        self._closing = True
        self._aside.kill()
        if self._task is not None:
            self._task.cancel()

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
            await self._aside.run(
                lambda is_wanted: self._write(temporary, index, term, members, is_wanted)
            )
            # Before it gets its name: a restart begins at the newest, replaying nothing older.
            await self._machine.before_truncate(index)
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
