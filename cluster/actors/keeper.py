"""Backups by themselves: the leader writes whole ones now and then, every node keeps its log.

Nothing here holds up the log or its shortening: a folder that cannot be written costs backups, not
work. It is told in the log file and in `/metrics`, and the next whole backup closes the gap. What a
cluster of the same name has left, whose data is lost, is not touched.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.actors.actor import Actor
from cluster.actors.claim import Claim
from cluster.backup import BackupError
from cluster.backup.life import Place
from cluster.backup.logs import KeptLog
from cluster.backup.shelf import Shelf
from cluster.backup.store import Copies, Store
from cluster.backup.take import Source, take, write_file
from cluster.clock import Clock
from cluster.raft_state import RaftState

log = logging.getLogger("quorate.keeper")

FLUSH_S = 1.0
LOOK_S = 2.0
RETRY_S = 60.0
WAITING_BYTES_MAX = 64 << 20  # of log, while it cannot be written

Entry = tuple[int, int, bytes]


@dataclass(frozen=True)
class Habits:
    """Where backups go, how often, how many stay. `keeps_log`: what comes after them, too."""

    folder: Path
    every_s: float
    keep: int
    with_history: bool
    keeps_log: bool
    store: str = ""  # address of a second place for all of it
    store_every_s: float = 60.0


class Keeper(Actor):
    """One per node; what only the leader does is looked at each time."""

    name = "keeper"

    def __init__(self, raft: RaftState, source: Source, habits: Habits, clock: Clock) -> None:
        super().__init__()
        self._raft = raft
        self._source = source
        self._habits = habits
        self._clock = clock
        self._entries: list[Entry] = []
        self._entries_bytes = 0
        self._log: KeptLog | None = None
        self._copies: Copies | None = None
        self._sending: asyncio.Task[None] | None = None
        self._failing: dict[str, str] = {}  # what does not work, and why
        self._look_at = self._send_at = self._not_before = 0.0
        self._claims = {"folder": Claim(raft), "store": Claim(raft)}
        self._is_ours = False  # the shelf in the folder
        self._asked_at = 0.0  # first, whether the store has whole backups
        self.counts = dict.fromkeys(
            (
                "backups_written",
                "backups_failed",
                "log_entries_kept",
                "log_entries_left_out",
                "store_failures",
            ),
            0,
        )
        self.newest_index = 0
        self.newest_ms = 0
        if habits.keeps_log:
            raft.on_entry(self._note)

    def _note(self, index: int, digest: int, entry: bytes) -> None:
        self._entries.append((index, digest, entry))
        self._entries_bytes += len(entry)
        if self._entries_bytes > WAITING_BYTES_MAX:
            self.counts["log_entries_left_out"] += len(self._entries)
            self._entries, self._entries_bytes = [], 0

    def gauges(self) -> dict[str, float]:
        """For `/metrics`."""
        age_s = (self._clock.now_ms() - self.newest_ms) / 1000 if self.newest_ms else -1.0
        return {
            **{f"keeper_{name}": float(count) for name, count in self.counts.items()},
            "keeper_newest_backup_index": self.newest_index,
            "keeper_newest_backup_age_seconds": age_s,
            "keeper_log_entries_waiting": len(self._entries),
            "keeper_shelf_refused": any(claim.refusal for claim in self._claims.values()),
            "keeper_store_files_sent": float(self._copies.sent_total if self._copies else 0),
        }

    # -- life ------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        self.tell("go")

    async def receive(self, message: Any) -> None:
        """The actor's one long task: the mailbox has nothing else."""
        while True:
            await self.turn()
            await asyncio.sleep(FLUSH_S)

    async def turn(self) -> None:
        """Whatever is due."""
        loop, shelf = asyncio.get_running_loop(), self._shelf()
        if shelf is None:
            return
        looks = loop.time() >= self._look_at
        if looks:
            self._look_at = loop.time() + LOOK_S
            self._is_ours = await self._claimed(shelf, loop.time())
        if not self._is_ours:
            return
        if self._entries:
            await self._flush(shelf)
        if self._habits.store and loop.time() >= self._send_at:
            if not self._is_sending():  # it may take long; the log goes on
                self._sending = asyncio.create_task(self._send(shelf))
                self._asked_at = self._asked_at or loop.time()
            self._send_at = loop.time() + self._habits.store_every_s
        if looks and await self._look(shelf, loop.time()):
            self._send_at = 0.0

    def _is_sending(self) -> bool:
        return self._sending is not None and not self._sending.done()

    async def on_stop(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
        shelf = self._shelf()
        if self._entries and self._is_ours and shelf is not None:
            await self._flush(shelf)
        if self._log is not None:
            self._log.close()
            self._log = None

    # -- whose shelf it is -----------------------------------------------------------------------

    def _shelf(self) -> Shelf | None:
        cluster_id = self._raft.consensus.cluster_id
        return Shelf(self._habits.folder, cluster_id) if cluster_id else None

    async def _claimed(self, shelf: Shelf, now_s: float) -> bool:
        try:
            return await self._claim("folder", shelf)
        except (BackupError, OSError) as error:
            if self._raft.is_leader and now_s >= self._not_before:
                self._failed(f"no backup: {error}", now_s)
            self._tell_failure("log", f"the log is not kept: {error}")
            return False

    async def _claim(self, what: str, place: Place) -> bool:
        claim = self._claims[what]
        is_ours = await claim.look(place)
        if claim.refusal:
            self._tell_failure(
                what,
                f"{place.where} has backups of another cluster of this name, whose data is lost: "
                f"{claim.refusal}. Nothing is written or removed there until somebody moves them "
                "away, see docs/backup.md",
            )
        elif is_ours:
            self._failing.pop(what, None)
        return is_ours

    # -- the log ---------------------------------------------------------------------------------

    async def _flush(self, shelf: Shelf) -> None:
        if self._log is None:
            self._log = KeptLog(shelf.folder)
        entries = self._entries
        self._entries, self._entries_bytes = [], 0
        try:
            await asyncio.to_thread(self._log.append, entries)
        except OSError as error:
            self._tell_failure("log", f"the log is not kept: {error}")
            self._entries[:0] = entries
            self._entries_bytes = sum(len(entry) for _, _, entry in self._entries)
            return
        self._failing.pop("log", None)
        self.counts["log_entries_kept"] += len(entries)

    # -- whole backups ---------------------------------------------------------------------------

    async def _look(self, shelf: Shelf, now_s: float) -> bool:
        """A backup when the newest one, whoever wrote it, is old enough; whether there is one."""
        if not self._raft.is_leader or now_s < self._not_before:
            return False
        try:
            fulls = await asyncio.to_thread(shelf.fulls)
            newest = max(
                (fulls[-1].index, fulls[-1].created_ms) if fulls else (0, 0),
                self._copies.newest if self._copies is not None else (0, 0),
            )
            if newest[1]:
                self.newest_index, self.newest_ms = newest
                if self._clock.now_ms() - self.newest_ms < self._habits.every_s * 1000:
                    return False
            elif self._store_will_tell(now_s):
                return False
            await self._back_up(shelf)
        except (BackupError, OSError) as error:
            self._failed(f"no backup: {error}", now_s)
            return False
        return True

    def _store_will_tell(self, now_s: float) -> bool:
        """Whether there is a whole backup in it. One that does not answer is not waited for."""
        is_told = self._copies is not None and self._copies.is_listed
        return self._is_sending() and not is_told and now_s - self._asked_at < RETRY_S

    def _failed(self, why: str, now_s: float) -> None:
        self.counts["backups_failed"] += 1
        self._not_before = now_s + RETRY_S
        self._tell_failure("backup", why)

    async def _back_up(self, shelf: Shelf) -> None:
        now_ms, habits = self._clock.now_ms(), self._habits
        await asyncio.to_thread(shelf.folder.mkdir, parents=True, exist_ok=True)
        taken = await take(self._source, self._raft.state, now_ms, with_history=habits.with_history)
        index = taken.manifest.index
        await asyncio.to_thread(write_file, taken, shelf.path_for(index, now_ms))
        self.newest_index, self.newest_ms = index, now_ms
        self.counts["backups_written"] += 1
        gone = await asyncio.to_thread(shelf.prune, habits.keep)
        self._failing.pop("backup", None)
        log.info("backup at log index %d written; %d old files removed", index, len(gone))

    # -- the second place ------------------------------------------------------------------------

    async def _send(self, shelf: Shelf) -> None:
        """What is new in the folder; the log until now is closed for it, if there is any."""
        if self._log is not None:
            self._log.close()
        try:
            if self._copies is None:
                store = Store(f"{self._habits.store.rstrip('/')}/{shelf.folder.name}")
                self._copies = Copies(store)
            copies = self._copies
            if not await self._claim("store", copies.store):
                return
            await asyncio.to_thread(copies.send, shelf.folder)
            leads, keep = self._raft.is_leader, self._habits.keep
            await asyncio.to_thread(copies.prune, shelf.folder, keep, leads=leads)
            self._failing.pop("sending", None)
        except Exception as error:  # of whatever library stands behind the address
            self.counts["store_failures"] += 1
            self._tell_failure("sending", f"nothing is sent to {self._habits.store}: {error!r}")

    def _tell_failure(self, what: str, why: str) -> None:
        """Once per reason, not once per second."""
        if why != self._failing.get(what):
            self._failing[what] = why
            log.error("%s (%s); work goes on", why, self._habits.folder)
