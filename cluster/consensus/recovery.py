"""Reads a journal folder back into a log, and decides what may be forgotten.

Only a torn tail may be cut: damage with an intact batch behind it lost something that was once
durable, and so did the last batch if the mark says so; then the node refuses to start
(protocol-aware recovery, FAST'18). Reading changes nothing;
the cut is a separate step that the caller takes once everything else was found good.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from . import records
from .guards import ALL_ON, Guards
from .interface import ConsensusStartError
from .mark import read_mark
from .storage import Open, Storage

SUFFIX = ".seg"
NAME = re.compile(r"\d{16}\.seg")
SPARE = "spare.tmp"  # space that is already taken, for the next segment
FIX = (
    "restore the file from a backup; or remove this node from the cluster, move its data folder "
    "away, start it empty with --join and add it again"
)

Entry = tuple[bytes, int, int]  # (command, index, term): the library's own shape


@dataclass
class Segment:
    """A journal file; `base_index` is where the log stood when the file was begun."""

    path: Path
    sequence: int
    base_index: int
    size: int  # up to the end of the last batch; reserved zeros may follow


@dataclass
class Recovered:
    """What the journal says. `base` is the point before the first entry."""

    base_index: int = 1
    base_term: int = 0
    entries: list[Entry] = field(default_factory=list)
    term: int = 0
    vote: str | None = None
    segments: list[Segment] = field(default_factory=list)
    next_batch: int = 1
    next_segment: int = 1
    cut: tuple[Path, int] | None = None  # what follows the last batch of this file can go

    @property
    def last_index(self) -> int:
        return self.entries[-1][1] if self.entries else self.base_index

    @property
    def last_term(self) -> int:
        return self.entries[-1][2] if self.entries else self.base_term

    @property
    def is_virgin(self) -> bool:
        """Nothing was ever promised from it."""
        return (self.base_index, self.last_index, self.term, self.vote) == (1, 1, 0, None)


def corrupt(path: Path, offset: int, why: str) -> ConsensusStartError:
    return ConsensusStartError(f"journal {path} is corrupt at byte {offset}: {why}; {FIX}")


def read_journal(
    storage: Storage, folder: Path, cluster: bytes, guards: Guards = ALL_ON
) -> Recovered:
    """Reads every segment in order; ConsensusStartError on anything but a torn tail."""
    found = Recovered()
    checked = guards.on("b7_checksums")
    paths = [folder / name for name in storage.list_names(folder) if NAME.fullmatch(name)]
    for path in paths:
        data, is_last = storage.read(path), path == paths[-1]
        _read_segment(found, path, data, cluster, is_last=is_last, checked=checked)
    durable = read_mark(storage, folder)
    if durable >= found.next_batch:
        path, offset = found.cut or (paths[-1] if paths else folder, 0)
        raise corrupt(path, offset, f"batch {found.next_batch}, once durable, is missing")
    if found.term < found.last_term:
        raise corrupt(paths[-1], 0, "the stored term is older than the last entry's")
    return found


def settle(storage: Storage, folder: Path, found: Recovered, guards: Guards = ALL_ON) -> None:
    """Removes a torn tail and makes what was read durable.

    After a killed process the last batches may sit in the page cache only; a node that counts them
    as durable must first see to it that they are.
    """
    storage.remove(folder / SPARE)
    if found.segments:
        last = found.segments[-1]
        descriptor = storage.open(last.path, Open.UPDATE)
        try:
            storage.truncate(descriptor, last.size)
            if guards.on("b1_settle"):
                storage.sync(descriptor)
        finally:
            storage.close(descriptor)
    storage.sync_folder(folder)


def _read_segment(
    found: Recovered, path: Path, data: bytes, cluster: bytes, *, is_last: bool, checked: bool
) -> None:
    header = records.SegmentHeader.decode(data)
    if header is None:  # the file gets its name after its header and first batch are durable
        raise corrupt(path, 0, "the segment header is damaged")
    if header.cluster != cluster:
        raise corrupt(path, 0, "the segment belongs to another cluster")
    if header.sequence != int(path.stem):
        raise corrupt(path, 0, f"this is segment {header.sequence} under another name")
    if found.segments and header.sequence != found.next_segment:
        raise corrupt(path, 0, f"segment {found.next_segment} before it is missing")
    segment = Segment(path, header.sequence, found.last_index, 0)
    offset = segment.size = _read_batches(found, segment, data, header.nonce, checked=checked)
    if records.any_batch_after(data, offset, header.nonce) is not None:
        raise corrupt(path, offset, "damaged data is followed by intact data")
    if offset == records.SEGMENT_HEADER.size:
        raise corrupt(path, offset, "the first batch is damaged")
    # Whether the rest of a file that is not the last was a batch, the number of the next file's
    # first batch tells; of the last file, the mark.
    if is_last and offset < len(data):
        found.cut = (path, offset)
    found.segments.append(segment)
    found.next_segment = header.sequence + 1


def _read_batches(
    found: Recovered, segment: Segment, data: bytes, nonce: bytes, *, checked: bool
) -> int:
    view = memoryview(data)
    offset = records.SEGMENT_HEADER.size
    is_first = True
    while (batch := records.batch_at(view, offset, nonce, checked=checked)) is not None:
        sequence, body = batch
        if (found.segments or not is_first) and sequence != found.next_batch:
            raise corrupt(segment.path, offset, f"batch {found.next_batch} is missing")
        try:
            for kind, a, b, payload in records.records_in(body):
                if is_first and kind == records.BASE:
                    _begin_segment(found, segment, a, b)
                else:
                    _replay(found, kind, a, b, payload)
        except ValueError as error:
            raise corrupt(segment.path, offset, str(error)) from error
        found.next_batch = sequence + 1
        is_first = False
        offset += records.BATCH_HEADER.size + len(body)
    return offset


def _replay(found: Recovered, kind: int, a: int, b: int, payload: bytes) -> None:
    if kind == records.ENTRY:
        if a != found.last_index + 1 or b < found.last_term:
            raise ValueError(f"entry {a} of term {b} does not follow {found.last_index}")
        found.entries.append((payload, a, b))
    elif kind == records.HARD_STATE:
        if a < found.term:
            raise ValueError(f"the term goes back from {found.term} to {a}")
        found.term, found.vote = a, (payload.decode() if b else None)
    elif kind == records.TRUNCATE:
        _truncate(found, a, b)
    elif kind == records.RESET:
        found.entries.clear()
        found.base_index, found.base_term = a, b
    else:
        raise ValueError(f"a record of unknown kind {kind}")


def _truncate(found: Recovered, first: int, term_before: int) -> None:
    if first <= found.base_index:  # older segments were deleted: the log now ends before its base
        found.entries.clear()
        found.base_index, found.base_term = first - 1, term_before
        return
    del found.entries[first - found.base_index - 1 :]
    if found.last_index != first - 1 or found.last_term != term_before:
        raise ValueError(f"the cut at {first} does not fit the log")


def _begin_segment(found: Recovered, segment: Segment, index: int, term: int) -> None:
    if not found.segments:
        found.base_index, found.base_term = index, term
    elif (index, term) != (found.last_index, found.last_term):
        raise ValueError(f"the segment begins after {index}, the log ends at {found.last_index}")
    segment.base_index = index
