"""Every file operation of consensus behind one door: the real files here, a simulation in tests.

Synchronous and stateless but for descriptors. An OSError is the only way to fail. Names and
contents become durable separately, as POSIX has it: `sync` is for a file, `sync_folder` for names.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

IOV_PARTS_MAX = 512  # below IOV_MAX (1,024) everywhere
FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_PREALLOCATION = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOSYS})


class Open(enum.Enum):
    """How a file is opened; every kind of descriptor can be synced and closed."""

    READ = os.O_RDONLY
    UPDATE = os.O_RDWR  # an existing file
    CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL  # a new file
    REPLACE = os.O_RDWR | os.O_CREAT | os.O_TRUNC  # a new or emptied file
    LOCK = os.O_RDWR | os.O_CREAT  # a file whose content does not matter


class Storage(Protocol):
    """What consensus asks of a file system."""

    def list_names(self, folder: Path) -> list[str]:
        """Sorted; empty if there is no such folder."""

    def exists(self, path: Path) -> bool: ...
    def make_folder(self, path: Path) -> None:
        """One level; fine if it exists."""

    def rename(self, old: Path, new: Path) -> None:
        """Replaces `new` at once; durable after `sync_folder`."""

    def remove(self, path: Path) -> None:
        """Fine if it does not exist."""

    def sync_folder(self, folder: Path) -> None:
        """Makes created, renamed and removed names durable."""

    def read(self, path: Path) -> bytes: ...
    def open(self, path: Path, how: Open) -> int: ...
    def close(self, descriptor: int) -> None: ...
    def file_bytes(self, descriptor: int) -> int: ...
    def read_at(self, descriptor: int, count: int, offset: int) -> bytes:
        """Shorter than `count` only at the end of the file."""

    def write_at(self, descriptor: int, parts: Sequence[bytes], offset: int) -> None:
        """All of it or an OSError; after that any prefix may be there."""

    def allocate(self, descriptor: int, size: int) -> bool:
        """Reserves space, reading as zeros; False where the file system cannot."""

    def truncate(self, descriptor: int, size: int) -> None: ...
    def sync(self, descriptor: int) -> None:
        """Makes content and size durable."""

    def sync_data(self, descriptor: int) -> None:
        """As `sync`, without times and the like."""

    def lock(self, path: Path) -> int:
        """Creates the file if needed; BlockingIOError while another descriptor holds it."""

    def free_bytes(self, folder: Path) -> int: ...


class FileStorage:
    """The operating system's files."""

    def list_names(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))  # noqa: PTH208 (names, not paths)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def exists(self, path: Path) -> bool:
        return path.exists()

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=0o700, exist_ok=True)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def open(self, path: Path, how: Open) -> int:
        return os.open(path, how.value | os.O_CLOEXEC, 0o600)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def file_bytes(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_size

    def read_at(self, descriptor: int, count: int, offset: int) -> bytes:
        data = os.pread(descriptor, count, offset)
        while len(data) < count:
            more = os.pread(descriptor, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def write_at(self, descriptor: int, parts: Sequence[bytes], offset: int) -> None:
        for start in range(0, len(parts), IOV_PARTS_MAX):
            group = parts[start : start + IOV_PARTS_MAX]
            wanted = sum(map(len, group))
            written = os.pwritev(descriptor, group, offset)
            if written < wanted:
                self._finish(descriptor, b"".join(group), offset, written)
            offset += wanted

    def _finish(self, descriptor: int, data: bytes, offset: int, written: int) -> None:
        """A short write: go on byte-exact, so that its cause shows as an error."""
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], offset + written)

    def allocate(self, descriptor: int, size: int) -> bool:
        if not hasattr(os, "posix_fallocate"):
            return False
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno in NO_PREALLOCATION:
                return False
            raise
        return True

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def sync_data(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def lock(self, path: Path) -> int:
        descriptor = self.open(path, Open.LOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def free_bytes(self, folder: Path) -> int:
        return shutil.disk_usage(folder).free


FILES = FileStorage()


def is_full(error: OSError) -> bool:
    """The disk or the quota has no room: unlike any other error of a write, this one passes."""
    return error.errno in FULL_ERRORS


def make_folders(storage: Storage, path: Path) -> None:
    """Makes a folder and those above it."""
    missing = []
    while not storage.exists(path):
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        storage.make_folder(folder)


def sync_path(storage: Storage, path: Path) -> None:
    """Makes the folder's own name durable, and those above it as far as they may be opened.

    All of them: a process that died right after it had made one left it to its successor.
    """
    for folder in (path, *path.absolute().parents):
        with contextlib.suppress(PermissionError):
            storage.sync_folder(folder)


def write_file(storage: Storage, path: Path, content: bytes) -> None:
    """Replaces a small file so that a crash leaves the old or the new content, whole."""
    temporary = path.with_suffix(".tmp")
    descriptor = storage.open(temporary, Open.REPLACE)
    try:
        storage.write_at(descriptor, [content], 0)
        storage.sync(descriptor)
    finally:
        storage.close(descriptor)
    storage.rename(temporary, path)
    storage.sync_folder(path.parent)


class BufferedWriter:
    """Gathers small writes into large ones; `close` without `finish` leaves an unfinished file."""

    BUFFER_BYTES = 1 << 20

    def __init__(self, storage: Storage, path: Path) -> None:
        self._storage = storage
        self._descriptor = storage.open(path, Open.REPLACE)
        self._parts: list[bytes] = []
        self._gathered = 0
        self._offset = 0

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._gathered += len(data)
        if self._gathered >= self.BUFFER_BYTES:
            self._flush()

    def finish(self) -> None:
        """Makes everything written durable."""
        self._flush()
        self._storage.sync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self._storage.close(self._descriptor)
            self._descriptor = -1

    def _flush(self) -> None:
        parts, self._parts, size = self._parts, [], self._gathered
        self._gathered = 0
        self._storage.write_at(self._descriptor, parts, self._offset)
        self._offset += size


class BufferedReader:
    """Reads a file from its start in large steps."""

    BUFFER_BYTES = 1 << 20

    def __init__(self, storage: Storage, path: Path) -> None:
        self._storage = storage
        self._descriptor = storage.open(path, Open.READ)
        self._buffer = b""
        self._position = 0
        self._offset = 0

    def read(self, count: int) -> bytes:
        """Shorter than `count` only at the end of the file."""
        rest = self._buffer[self._position : self._position + count]
        self._position += len(rest)
        missing = count - len(rest)
        if not missing:
            return rest
        data = self._storage.read_at(
            self._descriptor, max(missing, self.BUFFER_BYTES), self._offset
        )
        self._offset += len(data)
        self._buffer, self._position = data, min(missing, len(data))
        return rest + data[:missing]

    def close(self) -> None:
        self._storage.close(self._descriptor)
