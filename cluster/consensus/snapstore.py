"""One node's folder of snapshots: which there are, which counts, which may go.

A file counts only under its final name, and it gets that name only after its content is durable, so
a crash leaves either nothing or a whole snapshot. The two newest are kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .members import Members
from .snapfile import (
    NAME,
    SnapshotFile,
    SnapshotFileError,
    file_name,
    read_chunks,
    read_members,
    validate,
)
from .storage import Open, Storage

KEEP = 2
TEMPORARY = ".tmp"


class SnapshotStore:
    """Usable from any thread."""

    def __init__(self, storage: Storage, folder: Path, cluster_id: bytes) -> None:
        self.storage = storage
        self.folder = folder
        self.cluster_id = cluster_id
        self.rotten: set[int] = set()  # found damaged while running; not to be sent

    def all(self) -> list[SnapshotFile]:
        """Newest first; contents are not looked at."""
        found = []
        for name in self.storage.list_names(self.folder):
            match = NAME.fullmatch(name)
            if match:
                found.append(SnapshotFile(self.folder / name, int(match[1]), int(match[2])))
        return sorted(found, key=lambda snapshot: snapshot.index, reverse=True)

    def read(self, snapshot: SnapshotFile) -> Iterator[bytes]:
        """The content, every byte checked; SnapshotFileError on the first damage."""
        return read_chunks(
            self.storage, snapshot.path, self.cluster_id, snapshot.index, snapshot.term
        )

    def members(self, snapshot: SnapshotFile) -> Members:
        """The configuration as of the snapshot; SnapshotFileError if it cannot be read."""
        return read_members(self.storage, snapshot, self.cluster_id)

    def validate(self, snapshot: SnapshotFile) -> None:
        """Reads it once; SnapshotFileError or OSError if it is not intact."""
        self.validate_as(snapshot.path, snapshot.index, snapshot.term)

    def validate_as(self, path: Path, index: int, term: int) -> None:
        """The same for a file without its final name."""
        validate(self.storage, path, self.cluster_id, index, term)

    def publish(self, temporary: Path, index: int, term: int) -> SnapshotFile:
        """Gives a durable temporary file its final name, durably, and drops all but the newest."""
        path = self.folder / file_name(index, term)
        self.storage.rename(temporary, path)
        self.storage.sync_folder(self.folder)
        for old in self.all()[KEEP:]:
            self.storage.remove(old.path)
        return SnapshotFile(path, index, term)

    def damage_of(self, index: int) -> str:
        """What is wrong with the snapshot of that index; "" for an intact one."""
        for snapshot in self.all():
            if snapshot.index == index:
                try:
                    self.validate(snapshot)
                except (SnapshotFileError, OSError) as error:
                    return f"snapshot {snapshot.path} is damaged: {error}"
        return ""

    def discard(self, index: int) -> None:
        for snapshot in self.all():
            if snapshot.index == index:
                self.storage.remove(snapshot.path)
        self.storage.sync_folder(self.folder)

    def remove_unfinished(self) -> None:
        """A writer that outlived its node goes on into nothing."""
        for name in self.storage.list_names(self.folder):
            if name.endswith(TEMPORARY):
                self.storage.remove(self.folder / name)

    def size(self, snapshot: SnapshotFile) -> int:
        return self.bytes_of(snapshot.path)

    def bytes_of(self, path: Path) -> int:
        with self.opened(path) as descriptor:
            return self.storage.file_bytes(descriptor)

    def sync(self, path: Path) -> None:
        with self.opened(path) as descriptor:
            self.storage.sync(descriptor)

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[int]:
        descriptor = self.storage.open(path, Open.READ)
        try:
            yield descriptor
        finally:
            self.storage.close(descriptor)
