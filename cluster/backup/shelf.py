"""A folder of backups: one folder per cluster in it, whole backups and kept log in each.

    <folder>/<cluster id>/full-<index>-<created ms>.tar
    <folder>/<cluster id>/log-<first index>-<life of a node>.kept
    <folder>/<cluster id>/life.json         whose it is, see `life`

A restored cluster has another id, so it never writes between the files of the one it came from.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from .life import MARK
from .logs import kept_files, last_index, needed
from .whole import replace_file

LEFT_S = 3_600.0  # a file that was not written to for so long is perhaps a dead life's last
FULL = re.compile(r"full-(\d{20})-(\d{14})\.tar")


@dataclass(frozen=True, order=True)
class Full:
    """A whole backup, as its name says."""

    index: int
    created_ms: int
    path: Path


class Shelf:
    """Where one cluster's backups are."""

    def __init__(self, folder: Path, cluster_id: str) -> None:
        self.folder = folder / cluster_id

    @property
    def where(self) -> str:
        return str(self.folder)

    def mark(self) -> bytes | None:
        """What whoever began it left here. Raises OSError."""
        try:
            return (self.folder / MARK).read_bytes()
        except FileNotFoundError:
            return None

    def put_mark(self, data: bytes) -> None:
        """Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.folder / MARK, [data])

    def reach(self, *, exact: bool) -> int:
        """The highest log index of which there is anything, 0 if there is nothing; if it need not
        be `exact`, as the names say, which know no end of kept log. Raises OSError."""
        fulls = self.fulls()
        files = kept_files(self.folder) if self.folder.is_dir() else []
        newest = files[-1] if files else None
        ends = [fulls[-1].index if fulls else 0, newest.first if newest is not None else 0]
        if exact and newest is not None:
            ends.append(last_index(newest.path))
        return max(ends)

    def path_for(self, index: int, created_ms: int) -> Path:
        return self.folder / f"full-{index:020d}-{created_ms:014d}.tar"

    def fulls(self) -> list[Full]:
        """Oldest first. Raises OSError."""
        if not self.folder.is_dir():
            return []
        matches = ((FULL.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted(Full(int(m[1]), int(m[2]), path) for m, path in matches if m)

    def prune(self, keep: int) -> list[Path]:
        """Removes all but the newest `keep` whole backups, and the log that only older ones need;
        returns what was removed. Raises OSError."""
        fulls = self.fulls()
        if not fulls:
            return []
        gone = [full.path for full in fulls[:-keep]]
        files = kept_files(self.folder)
        oldest = fulls[-keep:][0].index
        wanted = {path for path in needed(files, oldest) if not _is_left(path, oldest)}
        gone += [file.path for file in files if file.path not in wanted]
        for path in gone:
            path.unlink(missing_ok=True)
        return gone


def _is_left(path: Path, oldest: int) -> bool:
    """Nobody has written to it for long, and it leads to no backup that stays. A node that goes on
    with it after all notices that it is gone."""
    return time.time() - path.stat().st_mtime > LEFT_S and last_index(path) <= oldest
