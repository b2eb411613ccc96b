"""Owns the data folder: one process at a time, one node, one cluster.

The cluster id is derived from the member list and the secret, so no first start has to agree on
one; a folder that was made for other members, another node or another secret is refused untouched.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import msgspec

from .interface import ConsensusStartError
from .recovery import FIX, Recovered
from .segments import DiskFullError, SegmentFiles
from .snapfile import SnapshotFile
from .storage import Storage, make_folders, sync_path, write_file

FORMAT = 1
IDENTITY_FILE = "identity.json"
LOCK_FILE = "lock"
JOURNAL_FOLDER = "journal"
SNAPSHOT_FOLDER = "snapshots"


class Identity(msgspec.Struct, frozen=True):
    """What the folder says about itself."""

    format: int
    cluster_id: str
    node_id: str


@functools.lru_cache(maxsize=8)
def cluster_key(secret: str | None, members: tuple[str, ...]) -> bytes:
    """32 bytes that prove the secret; scrypt, as strangers are told what is derived from it."""
    salt = b"quorate cluster\n" + "\n".join(sorted(members)).encode()
    if secret is None:
        return hashlib.sha256(b"no secret\n" + salt).digest()
    return hashlib.scrypt(secret.encode(), salt=salt, n=1 << 14, r=8, p=1, dklen=32)


def cluster_id_of(key: bytes) -> bytes:
    """16 bytes that name the cluster without revealing its key."""
    return hashlib.sha256(b"cluster id\n" + key).digest()[:16]


class DataFolder:
    """An opened folder; `close()` gives up the lock."""

    def __init__(self, storage: Storage, root: Path, node_id: str, cluster_id: bytes) -> None:
        self._storage = storage
        self.root = root
        self.journal = root / JOURNAL_FOLDER
        self.snapshots = root / SNAPSHOT_FOLDER
        self._node_id = node_id
        self._cluster_id = cluster_id.hex()
        self._lock = -1

    def open(self) -> None:
        """Locks the folder and checks whose it is; ConsensusStartError names folder and fix."""
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
            self._check_owner()
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

    def sign(self, files: SegmentFiles, opening: list[bytes]) -> None:
        """Ends a first start: from now on this folder is this node's, and has a journal."""
        if self._is_signed():
            return
        sync_path(self._storage, self.root)
        content = msgspec.json.encode(Identity(FORMAT, self._cluster_id, self._node_id))
        try:
            if files.is_empty:
                files.begin(opening)
            write_file(self._storage, self.root / IDENTITY_FILE, content + b"\n")
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

    def _check_owner(self) -> None:
        if not self._is_signed():
            return
        path = self.root / IDENTITY_FILE
        try:
            identity = msgspec.json.decode(self._storage.read(path), type=Identity)
        except (msgspec.DecodeError, OSError) as error:
            raise ConsensusStartError(f"{path} is unreadable ({error}); restore it") from error
        if identity.format != FORMAT:
            raise ConsensusStartError(
                f"{path} has format {identity.format}, this release reads {FORMAT}; use the "
                "release that wrote it"
            )
        if identity.node_id != self._node_id:
            raise ConsensusStartError(
                f"data folder {self.root} belongs to node {identity.node_id}, this is "
                f"{self._node_id}; choose this node's own folder"
            )
        if identity.cluster_id != self._cluster_id:
            raise ConsensusStartError(
                f"data folder {self.root} belongs to another cluster; start with the members and "
                "the cluster secret it was made with, or choose an empty folder"
            )
