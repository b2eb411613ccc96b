"""A disk in memory that forgets what was never synced, as badly as POSIX allows.

Every file has two images: what running processes see, and what a power loss is sure to leave. Of
the writes and name changes in between any subset may survive, a write torn at any byte or sector.
A failed fsync drops what it should have saved, and the next one still reports success, as Linux
does. Space, errors and damage are set by whoever runs the world.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

from cluster.consensus.storage import Open

SECTOR_BYTES = 512
NO_LIMIT = 1 << 62


class PowerCut(BaseException):
    """The plug was pulled in the middle of an operation; nothing works until `power_loss`."""


class Fate(Protocol):
    """Decides what a power loss leaves of what was not synced."""

    def keeps(self) -> bool:
        """Whether a name change, a new size or a cut reached the disk."""

    def ranges(self, offset: int, length: int) -> list[tuple[int, int]]:
        """The parts of a write that did, as (start, end) within it."""


class Everything:
    def keeps(self) -> bool:
        return True

    def ranges(self, offset: int, length: int) -> list[tuple[int, int]]:
        return [(0, length)]


class Nothing:
    def keeps(self) -> bool:
        return False

    def ranges(self, offset: int, length: int) -> list[tuple[int, int]]:
        return []


class Whims:
    """Any subset, in any order, torn anywhere."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def keeps(self) -> bool:
        return self._rng.random() < 0.5

    def ranges(self, offset: int, length: int) -> list[tuple[int, int]]:
        kind = self._rng.randrange(6)
        if kind < 2:
            return [(0, length)]
        if kind < 4:
            return []
        if kind == 4:
            return [(0, self._rng.randrange(length + 1))]
        edges = [0, *range(SECTOR_BYTES - offset % SECTOR_BYTES, length, SECTOR_BYTES), length]
        return [piece for piece in itertools.pairwise(edges) if self._rng.random() < 0.5]


@dataclass(eq=False)
class MemoryFile:
    """`lost` writes are seen by processes, but no sync will save them any more."""

    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[str, int, bytes]] = field(default_factory=list)

    def change(self, kind: str, offset: int, data: bytes = b"") -> None:
        _change(self.content, kind, offset, data)
        self.pending.append((kind, offset, data))

    def sync(self) -> None:
        for kind, offset, data in self.pending:
            _change(self.durable, kind, offset, data)
        self.pending.clear()

    def lose_power(self, fate: Fate) -> None:
        for kind, offset, data in self.pending:
            if kind != "write":
                if fate.keeps():
                    _change(self.durable, kind, offset, data)
                continue
            kept = fate.ranges(offset, len(data))
            for start, end in kept:
                _change(self.durable, kind, offset + start, data[start:end])
            if not kept and fate.keeps():
                _change(self.durable, "extend", offset + len(data), b"")
        self.pending.clear()
        self.content = bytearray(self.durable)


@dataclass(eq=False)
class MemoryFolder:
    names: dict[str, MemoryNode] = field(default_factory=dict)
    durable: dict[str, MemoryNode] = field(default_factory=dict)
    pending: list[tuple[str, str, MemoryNode]] = field(default_factory=list)  # old, new, what

    def change(self, old: str, new: str, node: MemoryNode) -> None:
        """Made (no old name), renamed, or removed (no new name)."""
        _rename(self.names, old, new, node)
        self.pending.append((old, new, node))

    def sync(self) -> None:
        for change in self.pending:
            _rename(self.durable, *change)
        self.pending.clear()

    def lose_power(self, fate: Fate) -> None:
        for change in self.pending:
            if fate.keeps():
                _rename(self.durable, *change)
        self.pending.clear()
        self.names = dict(self.durable)


MemoryNode = MemoryFile | MemoryFolder


class MemoryStorage:
    """A `Storage`. `before(operation, path)` may raise, to inject an error or pull the plug."""

    def __init__(self, *, capacity_bytes: int = NO_LIMIT) -> None:
        self.capacity_bytes = capacity_bytes
        self.before: Callable[[str, Path], None] = lambda operation, path: None
        self.named: Callable[[Path], None] = lambda path: None  # a file got its final name
        self.operations = 0  # those that change something, so far
        self._root = MemoryFolder()
        self._open: dict[int, tuple[MemoryFile, Path]] = {}
        self._locks: dict[int, MemoryFile] = {}
        self._next_descriptor = 1_000_000
        self._is_dead = False

    # Fates ---------------------------------------------------------------------------------

    def power_loss(self, fate: Fate) -> None:
        """Everything un-synced is at the mercy of `fate`; all processes on it are gone."""
        self.kill()
        seen: set[int] = set()
        self._lose_power(self._root, fate, seen)
        self._is_dead = False

    def kill(self) -> None:
        """The processes die, the machine runs on: what was written stays, un-synced as it is."""
        self._open.clear()
        self._locks.clear()

    def revive(self) -> None:
        """Undoes a pulled plug: only the process died, the machine did not."""
        self._is_dead = False

    def flip_bit(self, path: Path, position: int, bit: int) -> None:
        """Damage at rest, in what is seen and in what is durable."""
        file = self._file(path)
        for image in (file.content, file.durable):
            if position < len(image):
                image[position] ^= 1 << bit

    def rot(self, path: Path, position: int, bit: int) -> Callable[[], None]:
        """The same, and what puts the byte back, wherever it is still the damaged one."""
        file = self._file(path)
        good = file.content[position]
        bad = good ^ 1 << bit
        self.flip_bit(path, position, bit)

        def restore() -> None:
            for image in (file.content, file.durable):
                if position < len(image) and image[position] == bad:
                    image[position] = good

        return restore

    def overwrite(self, path: Path, content: bytes) -> None:
        """Damage or repair at rest: the file simply is this, durably."""
        folder, name = self._parent(path)
        file = MemoryFile(bytearray(content), bytearray(content))
        folder.names[name] = folder.durable[name] = file

    def durable_copy(self) -> MemoryStorage:
        """Another disk, with what a power loss at this moment would be sure to leave."""
        copy = MemoryStorage()
        copy._root = _durable_folder(self._root)
        return copy

    def files(self) -> list[Path]:
        """Every file, by name."""
        return sorted(self._walk(Path("/"), self._root))

    def unsynced_bytes(self, path: Path) -> int:
        return sum(len(data) for _, _, data in self._file(path).pending)

    def used_bytes(self) -> int:
        files = {id(file): file for file, _ in self._open.values()}
        files |= {id(self._file(path)): self._file(path) for path in self.files()}
        return sum(len(file.content) for file in files.values())

    # Storage -------------------------------------------------------------------------------

    def list_names(self, folder: Path) -> list[str]:
        self._asked("list_names", folder)
        node = self._node(folder)
        return sorted(node.names) if isinstance(node, MemoryFolder) else []

    def exists(self, path: Path) -> bool:
        self._asked("exists", path)
        return self._node(path) is not None

    def make_folder(self, path: Path) -> None:
        self._changes("make_folder", path)
        folder, name = self._parent(path)
        known = folder.names.get(name)
        if isinstance(known, MemoryFile):
            raise _error(errno.EEXIST, path)
        if known is None:
            folder.change("", name, MemoryFolder())

    def rename(self, old: Path, new: Path) -> None:
        self._changes("rename", new)
        file, (folder, name) = self._file(old), self._parent(new)
        if old.parent != new.parent:
            raise _error(errno.EXDEV, new)
        folder.change(old.name, name, file)
        self.named(new)

    def remove(self, path: Path) -> None:
        self._changes("remove", path)
        folder, name = self._parent(path)
        node = folder.names.get(name)
        if node is not None:
            folder.change(name, "", node)

    def sync_folder(self, folder: Path) -> None:
        self._changes("sync_folder", folder)
        node = self._node(folder)
        if not isinstance(node, MemoryFolder):
            raise _error(errno.ENOENT, folder)
        node.sync()

    def read(self, path: Path) -> bytes:
        self._asked("read", path)
        return bytes(self._file(path).content)

    def open(self, path: Path, how: Open) -> int:
        (self._asked if how in (Open.READ, Open.UPDATE) else self._changes)("open", path)
        folder, name = self._parent(path)
        node = folder.names.get(name)
        if isinstance(node, MemoryFolder):
            raise _error(errno.EISDIR, path)
        if node is not None and how is Open.CREATE:
            raise _error(errno.EEXIST, path)
        if node is None:
            if how in (Open.READ, Open.UPDATE):
                raise _error(errno.ENOENT, path)
            node = MemoryFile()
            folder.change("", name, node)
        elif how is Open.REPLACE:
            node.change("truncate", 0)
        self._next_descriptor += 1
        self._open[self._next_descriptor] = (node, path)
        return self._next_descriptor

    def close(self, descriptor: int) -> None:
        self._asked("close", self._opened(descriptor)[1])
        del self._open[descriptor]
        self._locks.pop(descriptor, None)

    def file_bytes(self, descriptor: int) -> int:
        return len(self._opened(descriptor)[0].content)

    def read_at(self, descriptor: int, count: int, offset: int) -> bytes:
        file, path = self._opened(descriptor)
        self._asked("read_at", path)
        return bytes(file.content[offset : offset + count])

    def write_at(self, descriptor: int, parts: Sequence[bytes], offset: int) -> None:
        file, path = self._opened(descriptor)
        self._changes("write_at", path)
        data = b"".join(parts)
        grows = offset + len(data) - len(file.content)
        missing = max(0, grows - self._room()) if grows > 0 else 0
        if missing < len(data):
            file.change("write", offset, data[: len(data) - missing])
        if missing:
            raise _error(errno.ENOSPC, path)

    def allocate(self, descriptor: int, size: int) -> bool:
        file, path = self._opened(descriptor)
        self._changes("allocate", path)
        if size - len(file.content) > self._room():
            raise _error(errno.ENOSPC, path)
        file.change("extend", size)
        return True

    def truncate(self, descriptor: int, size: int) -> None:
        file, path = self._opened(descriptor)
        self._changes("truncate", path)
        file.change("truncate", size)

    def sync(self, descriptor: int) -> None:
        self._sync("sync", descriptor)

    def sync_data(self, descriptor: int) -> None:
        self._sync("sync_data", descriptor)

    def lock(self, path: Path) -> int:
        descriptor = self.open(path, Open.LOCK)
        file, _ = self._opened(descriptor)
        if any(held is file for held in self._locks.values()):
            del self._open[descriptor]
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        self._locks[descriptor] = file
        return descriptor

    def free_bytes(self, folder: Path) -> int:
        return max(0, self._room())

    # Inside --------------------------------------------------------------------------------

    def _asked(self, operation: str, path: Path) -> None:
        if self._is_dead:
            raise PowerCut
        try:
            self.before(operation, path)
        except PowerCut:
            self._is_dead = True
            raise

    def _changes(self, operation: str, path: Path) -> None:
        self._asked(operation, path)
        self.operations += 1

    def _sync(self, operation: str, descriptor: int) -> None:
        file, path = self._opened(descriptor)
        try:
            self._changes(operation, path)
        except OSError:
            file.pending.clear()  # the kernel forgets which pages it failed to write
            raise
        file.sync()

    def _room(self) -> int:
        return self.capacity_bytes - (self.used_bytes() if self.capacity_bytes != NO_LIMIT else 0)

    def _opened(self, descriptor: int) -> tuple[MemoryFile, Path]:
        if self._is_dead:
            raise PowerCut
        if descriptor not in self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._open[descriptor]

    def _node(self, path: Path) -> MemoryNode | None:
        node: MemoryNode | None = self._root
        for name in path.parts[1:] if path.is_absolute() else path.parts:
            if not isinstance(node, MemoryFolder):
                return None
            node = node.names.get(name)
        return node

    def _parent(self, path: Path) -> tuple[MemoryFolder, str]:
        folder = self._node(path.parent)
        if not isinstance(folder, MemoryFolder):
            raise _error(errno.ENOENT if folder is None else errno.ENOTDIR, path)
        return folder, path.name

    def _file(self, path: Path) -> MemoryFile:
        node = self._node(path)
        if not isinstance(node, MemoryFile):
            raise _error(errno.ENOENT if node is None else errno.EISDIR, path)
        return node

    def _walk(self, path: Path, folder: MemoryFolder) -> list[Path]:
        found = []
        for name, node in folder.names.items():
            below = path / name
            found += self._walk(below, node) if isinstance(node, MemoryFolder) else [below]
        return found

    def _lose_power(self, folder: MemoryFolder, fate: Fate, seen: set[int]) -> None:
        """A file keeps its fate even if two names lead to it for a moment."""
        folder.lose_power(fate)
        for _, node in sorted(folder.names.items()):
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, MemoryFolder):
                self._lose_power(node, fate, seen)
            else:
                node.lose_power(fate)


def _durable_folder(folder: MemoryFolder) -> MemoryFolder:
    names: dict[str, MemoryNode] = {}
    for name, node in folder.durable.items():
        if isinstance(node, MemoryFolder):
            names[name] = _durable_folder(node)
        else:
            names[name] = MemoryFile(bytearray(node.durable), bytearray(node.durable))
    return MemoryFolder(names, dict(names))


def _change(image: bytearray, kind: str, offset: int, data: bytes) -> None:
    if kind == "truncate":
        del image[offset:]
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    if data:
        image[offset : offset + len(data)] = data


def _rename(names: dict[str, MemoryNode], old: str, new: str, node: MemoryNode) -> None:
    if old and names.get(old) is node:
        del names[old]
    if new:
        names[new] = node


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
