"""The log as the engine sees it: a list in memory, mirrored to the disk in one ordered stream.

Every change gets a generation number; the disk reports generations back, and nothing that depends
on a change may be said before its generation is durable. The engine can neither clear this journal
nor compact it: both are steps of the snapshot code.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, overload

from pysyncobj.journal import Journal as LibraryJournal

from . import records
from .disk import Disk
from .guards import ALL_ON, Guards
from .interface import ConsensusStartError, FatalError
from .members import CONFIG, decode_members
from .recovery import Entry, Recovered
from .roster import Roster
from .segments import Batch

if TYPE_CHECKING:
    from collections.abc import Iterable

NO_OP = b"\x01"  # the library's command type 1: applied by skipping


class Journal(LibraryJournal):  # type: ignore[misc]
    """`_log[0]` is the point before the first entry; only its index and term are ever used."""

    def __init__(self, found: Recovered, applied_index: int, guards: Guards = ALL_ON) -> None:
        self._keeps_hard_state = guards.on("b6_hard_state")
        self._forgets_durable = guards.on("aba_durable")
        self._log: list[Entry] = [(NO_OP, found.base_index, found.base_term), *found.entries]
        self._applied_at_open = applied_index
        self._term, self._vote = found.term, found.vote
        self._disk: Disk | None = None
        self._roster: Roster | None = None
        self._parts: list[bytes] = []
        self._opening: list[bytes] = []
        self._in_flight: deque[Batch] = deque()
        self.generation = 0
        self.durable_generation = 0
        self.durable_index = self._log[-1][1]
        self.hard_state_generation = 0
        self.log_bytes = sum(len(entry[0]) for entry in self._log)
        self.grown_bytes = sum(len(e[0]) for e in self._log if e[1] > applied_index)

    def attach(self, disk: Disk) -> None:
        self._disk = disk

    def watch(self, roster: Roster) -> None:
        """From now on the roster follows this log; what a snapshot covers, it knows already."""
        self._roster = roster
        for command, index, _ in self._log[1:]:
            if index <= self._applied_at_open or command[:1] != CONFIG:
                continue
            try:
                roster.appended(index, decode_members(command[1:]))
            except ValueError as error:
                raise ConsensusStartError(f"journal entry {index}: {error}") from error

    # What the engine reads -----------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._log)

    @overload
    def __getitem__(self, key: int) -> Entry: ...
    @overload
    def __getitem__(self, key: slice) -> list[Entry]: ...
    def __getitem__(self, key: int | slice) -> Entry | list[Entry]:
        return self._log[key]

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._vote

    def getRaftCommitIndex(self) -> int:
        """A8: never more than what the snapshot proves; the leader tells the rest."""
        return self._applied_at_open

    def setRaftCommitIndex(self, raft_commit_index: int) -> None:
        """Not stored: after a restart the quorum knows better than any hint."""

    # What the engine and the snapshot code change ------------------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        last = self._log[-1]
        if idx != last[1] + 1 or term < last[2]:
            raise FatalError(f"entry {idx} (term {term}) does not follow {last[1]} ({last[2]})")
        self._record(records.record(records.ENTRY, idx, term, command))
        self.grown_bytes += len(command) + records.RECORD.size
        self._log.append((command, idx, term))
        self.log_bytes += len(command)
        if command[:1] == CONFIG and self._roster is not None:
            self._roster.appended(idx, decode_members(command[1:]))

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        first = self._log[entryFrom][1]
        if entryFrom < 1:
            raise FatalError(f"the log must not be cut at its base ({first})")
        self._record(records.record(records.TRUNCATE, first, self._log[entryFrom - 1][2]))
        self.log_bytes -= sum(len(entry[0]) for entry in self._log[entryFrom:])
        del self._log[entryFrom:]
        self._forget_durable_from(first)
        if self._roster is not None:
            self._roster.cut_from(first)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        if term < self._term:
            raise FatalError(f"the term must not go back from {self._term} to {term}")
        if self._keeps_hard_state:
            self._record(records.hard_state(term, votedForNodeId))
        self._term, self._vote = term, votedForNodeId
        self.hard_state_generation = self.generation

    def reset(self, index: int, term: int) -> None:
        """An installed snapshot replaces the whole log."""
        self._record(records.record(records.RESET, index, term))
        self._log = [(NO_OP, index, term)]
        self.log_bytes = self.grown_bytes = 0
        self._forget_durable_from(0)
        self.durable_index = index  # the snapshot file itself is durable before this is called

    def trim(self, index: int) -> None:
        """Forgets entries below `index` in memory; `index` becomes the base."""
        count = index - self._log[0][1]
        if count > 0:
            self.log_bytes -= sum(len(entry[0]) for entry in self._log[:count])
            del self._log[:count]

    def clear(self) -> None:
        raise FatalError("the engine tried to clear the log")

    def deleteEntriesTo(self, entryTo: int) -> None:
        raise FatalError("the engine tried to compact the log")

    def _destroy(self) -> None:
        """Files are closed by whoever opened the disk."""

    # Lookups -------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        return self._log[0][1]

    @property
    def last_index(self) -> int:
        return self._log[-1][1]

    @property
    def last_term(self) -> int:
        return self._log[-1][2]

    def term_at(self, index: int) -> int | None:
        """None outside of what is held in memory."""
        position = index - self._log[0][1]
        return self._log[position][2] if 0 <= position < len(self._log) else None

    def entry_at(self, index: int) -> Entry:
        return self._log[index - self._log[0][1]]

    def entries(self, first: int, bytes_max: int, count_max: int) -> list[Entry]:
        """Entries from `first` on: at least one, then as many as fit both bounds."""
        position = first - self._log[0][1]
        size = 0
        for end in range(position, min(len(self._log), position + count_max)):
            size += len(self._log[end][0])
            if size > bytes_max and end > position:
                return self._log[position:end]
        return self._log[position : position + count_max]

    def trailing_index(self, applied: int, entries_max: int, bytes_max: int) -> int:
        """The lowest index worth keeping in memory for followers that lag."""
        index, size = applied, 0
        floor = max(self.first_index, applied - entries_max)
        while index > floor and size < bytes_max:
            size += len(self.entry_at(index)[0])
            index -= 1
        return index

    # Durability ----------------------------------------------------------------------------

    def kick(self) -> None:
        """Hands what has gathered to the disk."""
        if not self._parts:
            return
        batch = Batch(self.generation, self.last_index, self._parts, self._opening)
        self._parts, self._opening = [], []
        self._in_flight.append(batch)
        if self._disk is None:
            raise FatalError("the journal has no disk")
        self._disk.write(batch)

    def on_durable(self, finished: Batch) -> None:
        """Everything up to `finished` is on the disk."""
        while self._in_flight:
            batch = self._in_flight.popleft()
            self.durable_generation = batch.generation
            self.durable_index = max(self.durable_index, batch.last_index)
            if batch is finished:
                return
        raise FatalError("the disk finished a batch that was never given to it")

    @property
    def disk_is_full(self) -> bool:
        return self._disk is not None and self._disk.is_full

    @property
    def is_durable(self) -> bool:
        return self.durable_generation == self.generation

    def _record(self, parts: Iterable[bytes]) -> None:
        if not self._parts:
            self._opening = self.opening()
        self._parts.extend(parts)
        self.generation += 1

    def opening(self) -> list[bytes]:
        """What a file begins with that takes over from here."""
        last = self._log[-1]
        return [
            b"".join(records.hard_state(self._term, self._vote)),
            *records.record(records.BASE, last[1], last[2]),
        ]

    def _forget_durable_from(self, first: int) -> None:
        """ABA: an earlier write of a removed index must not make its successor look durable."""
        if not self._forgets_durable:
            return
        self.durable_index = min(self.durable_index, first - 1)
        for batch in self._in_flight:
            batch.last_index = min(batch.last_index, first - 1)
