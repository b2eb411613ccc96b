"""Takes a backup of this node's replica while it goes on working."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cluster.consensus import Consensus, SnapshotError, read_copy
from cluster.history import History
from cluster.machine.state import State

from .bundle import BackupError, measure, stream
from .manifest import HISTORY, STATE, Manifest, Part
from .past import write_history
from .whole import replace_file


@dataclass
class Taken:
    """A backup ready to be sent; `close()` gives its files up."""

    manifest: Manifest
    files: dict[str, BinaryIO]
    _open: ExitStack

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the backup, once."""
        return stream(self.manifest, self.files)

    def close(self) -> None:
        self._open.close()


@dataclass(frozen=True)
class Source:
    """What a backup is taken from. `scratch` is a folder for the copy of the history."""

    consensus: Consensus
    history: History
    node_id: str
    release: str
    scratch: Path


async def take(source: Source, state: State, now_ms: int, *, with_history: bool) -> Taken:
    """A backup of all that this node has applied. BackupError says why there is none."""
    with ExitStack() as opened:
        try:
            await source.consensus.snapshot_now()
            newest = source.consensus.newest_snapshot
            assert newest is not None
            snap = opened.enter_context(newest.path.open("rb"))
        except (SnapshotError, OSError) as error:
            raise BackupError(f"no snapshot could be taken: {error}") from error
        cluster, index, term, _ = read_copy(snap)
        snap.seek(0)
        files: dict[str, BinaryIO] = {STATE: snap}
        lacks = source.history.lacking(index) if with_history else None
        if with_history:
            file = opened.enter_context(tempfile.TemporaryFile(dir=source.scratch))
            await write_history(source.history, index, file)
            files[HISTORY] = file
        parts = await asyncio.to_thread(_measure, files)
        tables = state.tables
        manifest = Manifest(
            cluster_id=cluster.hex(),
            node_id=source.node_id,
            release=source.release,
            index=index,
            term=term,
            created_ms=now_ms,
            jobs=len(tables.jobs),
            dead_letters=len(tables.dead),
            schedules=len(tables.schedules),
            has_history=with_history,
            history_lacks=lacks,
            parts=parts,
        )
        return Taken(manifest, files, opened.pop_all())


def _measure(files: dict[str, BinaryIO]) -> dict[str, Part]:
    return {name: measure(file) for name, file in files.items()}


def write_file(taken: Taken, path: Path) -> None:
    """The backup as a file that appears whole or not at all, durably. Raises OSError."""
    with closing(taken):
        replace_file(path, taken.pieces())
