"""Owns the data folder: one process at a time, and one node for its whole life.

A folder that belongs to another node is refused untouched. What else it says about itself, and
about the cluster, is in `identity.py`.
"""

from __future__ import annotations

from pathlib import Path

from .identity import Identity, decode_identity, encode_identity
from .interface import ConsensusStartError
from .recovery import FIX, Recovered
from .segments import DiskFullError, SegmentFiles
from .snapfile import SnapshotFile
from .storage import Storage, make_folders, sync_path, write_file

IDENTITY_FILE = "identity.json"
LOCK_FILE = "lock"
JOURNAL_FOLDER = "journal"
SNAPSHOT_FOLDER = "snapshots"


class DataFolder:
    """An opened folder; `close()` gives up the lock."""

    def __init__(self, storage: Storage, root: Path, node_id: str) -> None:
        self._storage = storage
        self.root = root
        self.journal = root / JOURNAL_FOLDER
        self.snapshots = root / SNAPSHOT_FOLDER
        self._node_id = node_id
        self._lock = -1

    def open(self) -> Identity | None:
        """Locks the folder and reads whose it is, None if it is new.

        ConsensusStartError names folder and fix.
        """
        try:
            make_folders(self._storage, self.root)
            self._lock = self._storage.lock(self.root / LOCK_FILE)
        except BlockingIOError as error:
            raise ConsensusStartError(
                f"data folder {self.root} is in use by another process; stop that node or choose "
                "another folder"
            ) from error
        except OSError as error:
            raise ConsensusStartError(
                f"data folder {self.root} cannot be used: {error.strerror}; choose another folder "
                "or correct its owner and permissions"
            ) from error
        try:
            return self._read_identity()
        except ConsensusStartError:
            self.close()
            raise

    def check_content(self, found: Recovered, snapshot: SnapshotFile | None) -> None:
        """ConsensusStartError if what an earlier start has made durable is gone."""
        if self._is_signed():
            if not found.segments:
                # Entries, term and vote are gone: not a state to vote from.
                raise ConsensusStartError(
                    f"journal {self.journal} is empty, but {self.root} was in use; {FIX}"
                )
        elif snapshot is not None or not found.is_virgin:
            raise ConsensusStartError(
                f"{self.root / IDENTITY_FILE} is missing although {self.root} holds data; restore "
                "it from a backup or choose an empty folder"
            )

    def prepare(self) -> None:
        """Called once everything was found good; up to here nothing was changed.

        What was found may be a killed process' last act, named but not durably so.
        """
        for folder in (self.journal, self.snapshots):
            self._storage.make_folder(folder)
            self._storage.sync_folder(folder)
        self._storage.sync_folder(self.root)

    def sign(self, identity: Identity, files: SegmentFiles, opening: list[bytes]) -> None:
        """Ends a first start: from now on this folder is this node's, and has a journal."""
        if self._is_signed():
            return
        sync_path(self._storage, self.root)
        try:
            if files.is_empty:
                files.begin(opening)
            write_file(self._storage, self.root / IDENTITY_FILE, encode_identity(identity))
        except (OSError, DiskFullError) as error:
            raise ConsensusStartError(
                f"data folder {self.root} cannot be prepared: {error}; free space or choose "
                "another folder"
            ) from error

    def _is_signed(self) -> bool:
        return self._storage.exists(self.root / IDENTITY_FILE)

    def close(self) -> None:
        if self._lock >= 0:
            self._storage.close(self._lock)
            self._lock = -1

    def _read_identity(self) -> Identity | None:
        if not self._is_signed():
            return None
        path = self.root / IDENTITY_FILE
        try:
            identity = decode_identity(self._storage.read(path), str(path))
        except OSError as error:
            raise ConsensusStartError(f"{path} is unreadable ({error}); restore it") from error
        if identity.node_id != self._node_id:
            raise ConsensusStartError(
                f"data folder {self.root} belongs to node {identity.node_id}, this is "
                f"{self._node_id}; choose this node's own folder"
            )
        return identity
