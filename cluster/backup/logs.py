"""Kept log: every applied entry, in files beside the backups, so that a restore can go on from a
backup to any later moment.

An entry is kept together with the state's digest after it. Replaying compares the two: a gap, or a
release that books an entry differently, is noticed at once and not restored.
"""

from __future__ import annotations

import heapq
import os
import re
import secrets
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cluster.machine.apply import apply
from cluster.machine.commands import decode_batch
from cluster.machine.state import State

from .bundle import BackupError

MAGIC = b"QRTKEPT1"
HEAD = struct.Struct("<QIII")  # index, digest after it, length, crc of the three and the entry
NAME = re.compile(r"log-(\d{20})(?:-\d{20})?-([0-9a-f]{16})\.kept")  # with its last in a store
ENTRY_BYTES_MAX = 1 << 30
FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class Target:
    """Up to which moment the kept log of `folder` is replayed; 0 means no bound."""

    folder: Path
    index: int = 0
    at_ms: int = 0


class KeptLog:
    """Appends entries to files of one folder; usable from one thread at a time."""

    def __init__(self, folder: Path, writer: str = "") -> None:
        """`writer` (16 hex digits, chance by default) tells files apart of several nodes in one
        folder, and of several lives of a node: a restarted one keeps again what it replays, perhaps
        not to the end, and may not write over what it kept before."""
        self._folder = folder
        self._writer = writer or secrets.token_hex(8)
        self._file = -1
        self._path = folder
        self._size = 0

    def append(self, entries: list[tuple[int, int, bytes]]) -> None:
        """(index, digest, entry) in log order, durable when it returns. Raises OSError; what was
        begun is then given up and the next call opens another file."""
        try:
            if self._file < 0:
                self._open(entries[0][0])
            data = b"".join(_record(*entry) for entry in entries)
            _write_all(self._file, data)
            os.fdatasync(self._file)
            self._size += len(data)
            is_gone = not self._path.exists()
        except OSError:
            self.close()
            self._writer = secrets.token_hex(8)  # the same entries come again
            raise
        if is_gone or self._size >= FILE_BYTES:
            self.close()
        if is_gone:  # a leader took it for an old one, or somebody moved the shelf away
            self.append(entries)

    def _open(self, index: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"log-{index:020d}-{self._writer}.kept"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file, self._path, self._size = os.open(path, flags, 0o600), path, 0
        _write_all(self._file, MAGIC)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """The file is at its end; the next entries begin another one."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _record(index: int, digest: int, entry: bytes) -> bytes:
    crc = zlib.crc32(entry, zlib.crc32(struct.pack("<QI", index, digest)))
    return HEAD.pack(index, digest, len(entry), crc) + entry


class KeptFile(NamedTuple):
    """A file of the kept log, as its name says."""

    first: int
    writer: str
    path: Path


def kept_files(folder: Path) -> list[KeptFile]:
    """All files, by their first index. Raises OSError."""
    matches = ((NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted(KeptFile(int(match[1]), match[2], path) for match, path in matches if match)


def read_entries(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """What is whole in a file; it ends at the first record that is not (a crash, or damage)."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
        while True:
            head = file.read(HEAD.size)
            if len(head) < HEAD.size:
                return
            index, digest, length, _ = HEAD.unpack(head)
            entry = file.read(min(length, ENTRY_BYTES_MAX))
            if head + entry != _record(index, digest, entry):
                return
            yield index, digest, entry


def last_index(path: Path) -> int:
    """The last whole entry of a file, 0 if it has none."""
    return max((index for index, _, _ in read_entries(path)), default=0)


def replay(state: State, index: int, term: int, target: Target) -> tuple[int, int, int]:
    """Brings `state`, which is at `index`, to the target; returns (entries, index, term).

    BackupError if the kept log does not reach that moment without a gap."""
    applied = 0
    for position, digest, entry in _in_order(target.folder, index):
        if target.index and position > target.index:
            return applied, index, term
        batch = decode_batch(entry)
        if target.at_ms and batch.now_ms > target.at_ms:
            return applied, index, term
        apply(state, batch)
        if state.digest != digest:
            raise BackupError(
                f"the kept log in {target.folder} does not go on from index {index}: at "
                f"{position} the digest is {state.digest:08x}, it was {digest:08x}; an entry is "
                f"missing, or another release wrote it; restore to index {index} or earlier"
            )
        applied, index, term = applied + 1, position, max(term, batch.epoch)
    if target.index > index or target.at_ms:
        wanted = f"index {target.index}" if target.index else "that time"
        raise BackupError(
            f"the kept log in {target.folder} ends at index {index}, before {wanted}: "
            "give an earlier moment, or none to restore all that was kept"
        )
    return applied, index, term


def _in_order(folder: Path, after: int) -> Iterator[tuple[int, int, bytes]]:
    """Entries behind `after`, each index once, from the files of however many nodes."""
    try:
        files = needed(kept_files(folder), after)
    except OSError as error:
        raise BackupError(f"{folder} cannot be read: {error.strerror}") from error
    last = after
    for index, digest, entry in heapq.merge(*map(read_entries, files), key=_position):
        if index > last:
            yield index, digest, entry
            last = index


def _position(entry: tuple[int, int, bytes]) -> int:
    return entry[0]


def needed(files: list[KeptFile], after: int) -> list[Path]:
    """Leaves out what ends at or before `after`: the same writer's next file begins no later."""
    following: dict[str, int] = {}
    found = []
    for file in reversed(files):
        if file.first > after or following.get(file.writer, after + 2) > after + 1:
            found.append(file.path)
        following[file.writer] = file.first
    return found[::-1]
