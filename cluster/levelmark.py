"""A note in the data folder: the feature level that its data has reached.

The level is in the log and in snapshots as well, and a release that meets one it does not know
stops there. The note lets it say so before it has read, or changed, anything.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from cluster.consensus.folder import JOURNAL_FOLDER
from cluster.consensus.storage import FILES, write_file
from cluster.machine.levels import Support, refusal

FILE = "feature-level.json"

log = logging.getLogger("quorate.levels")


class LevelError(Exception):
    """This release must not touch the folder; names the folder and the fix."""


class _Note(msgspec.Struct):
    """`born` is the highest level that was known to the release that made the folder; 0: it was one
    without levels, or the folder joined a cluster."""

    level: int = 0
    born: int = 0


class LevelMark:
    """The note of one folder, for a release that knows levels up to `highest`."""

    def __init__(self, folder: Path, highest: int) -> None:
        self._folder = folder
        self._path = folder / FILE
        self._highest = highest
        self._note = _Note()

    def read(self, *, joins: bool) -> None:
        """Before anything else of the folder is looked at. Raises LevelError."""
        try:
            self._note = msgspec.json.decode(self._path.read_bytes(), type=_Note)
        except FileNotFoundError:
            is_new = not joins and not (self._folder / JOURNAL_FOLDER).exists()
            self._note.born = self._highest if is_new else 0
        except (OSError, msgspec.MsgspecError) as error:
            raise LevelError(
                f"{self._path} cannot be read ({error}): move it away, the level is in the log, too"
            ) from error
        if too_new := refusal(self._note.level, self._highest):
            raise LevelError(f"cannot start on {self._folder}: {too_new}")

    def support(self, held: int) -> Support:
        return Support(self._highest, held=held, born=self._note.born)

    def reached(self, level: int) -> None:
        if level > self._note.level:
            self._note.level = level
            self.write()

    def write(self) -> None:
        """Durable when this returns, unless the disk is full: the log knows the level, too."""
        try:
            write_file(FILES, self._path, msgspec.json.encode(self._note) + b"\n")
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error.strerror)
