"""Makes the data folder of a node whose cluster begins with a state instead of with nothing.

All first members are planted with the same snapshot, so whichever of them are up elect a leader
that has it. The cluster's name is new: neither a node of the old cluster nor one that was started
empty by mistake is let in.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from .folder import DataFolder
from .guards import ALL_ON
from .identity import cluster_id_of, cluster_key, new_identity
from .interface import ConsensusStartError
from .journal import Journal
from .listener import split_address
from .members import first_members
from .recovery import read_journal, settle
from .segments import SegmentFiles
from .snapfile import write_content
from .snapstore import TEMPORARY, SnapshotStore
from .storage import FILES, BufferedWriter

SEGMENT_BYTES = 16 << 20


def plant(
    data_dir: Path,
    node_id: str,
    members: Sequence[str],
    secret: str | None,
    *,
    index: int,
    term: int,
    origin: bytes,
    chunks: Iterable[bytes],
) -> None:
    """Writes a snapshot of the machine at `index` into a new folder, as `node_id`'s.

    `origin` names what is planted: members planted with different ones refuse each other. Raises
    ConsensusStartError if the folder is in use or holds anything, OSError if it cannot be written;
    what was begun then refuses to start.
    """
    names = tuple(sorted({node_id, *members}))
    for name in names:
        split_address(name)
    _require_empty(data_dir)
    cluster_id = _planted_id(cluster_id_of(cluster_key(secret), names), origin)
    folder = DataFolder(FILES, data_dir, node_id)
    folder.open()
    try:
        folder.prepare()
        store = SnapshotStore(FILES, folder.snapshots, cluster_id)
        temporary = folder.snapshots / f"planting-{os.getpid()}{TEMPORARY}"
        with contextlib.closing(BufferedWriter(FILES, temporary)) as file:
            write_content(
                file,
                cluster=cluster_id,
                index=index,
                term=term,
                members=first_members(names),
                chunks=chunks,
            )
            file.finish()
        store.validate_as(temporary, index, term)
        store.publish(temporary, index, term)
        found = read_journal(FILES, folder.journal, cluster_id, ALL_ON)
        settle(FILES, folder.journal, found, ALL_ON)
        files = SegmentFiles(FILES, folder.journal, cluster_id, found, SEGMENT_BYTES, fsync=True)
        # Last: without this name the folder refuses to start.
        folder.sign(new_identity(cluster_id, node_id, names), files, Journal(found, 1).opening())
        files.close()
    finally:
        folder.close()


def _require_empty(data_dir: Path) -> None:
    if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
        raise ConsensusStartError(
            f"{data_dir} is not an empty folder: nothing is written over data; choose another one"
        )


def _planted_id(plain: bytes, origin: bytes) -> bytes:
    return hashlib.sha256(b"quorate planted\n" + plain + origin).digest()[:16]
