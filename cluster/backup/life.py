"""Whose shelf it is: that of one life of a cluster, from its first start to the loss of its data.

Addresses and secret name a cluster. One that was started anew with empty folders therefore has the
name, and the shelf, of the one that was lost: what it keeps would lie between the files that a
restore needs, and its retention would remove them. But every data folder has a number of its own,
and a cluster knows those of all its members, past ones too. The mark on a shelf names the ones of
whoever began it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from .bundle import BackupError

MARK = "life.json"


class Life(msgspec.Struct, frozen=True):
    """The data folders that a cluster has known; `epoch` counts the changes of its members."""

    epoch: int
    folders: tuple[str, ...]

    def knows(self, mark: Life) -> bool:
        """The same cluster, at that time or later. (It forgets whoever was removed 64 removals ago;
        a mark is not left alone for so long.)"""
        return set(mark.folders) <= set(self.folders)

    def has_news_for(self, mark: Life | None) -> bool:
        return mark is None or (mark.epoch < self.epoch and mark.folders != self.folders)


class Place(Protocol):
    """A shelf in a folder or a store; everything in it blocks."""

    @property
    def where(self) -> str: ...
    def mark(self) -> bytes | None: ...
    def put_mark(self, data: bytes) -> None: ...
    def reach(self, *, exact: bool) -> int: ...


def encode_life(life: Life) -> bytes:
    return msgspec.json.encode(life) + b"\n"


def decode_life(data: bytes, where: str) -> Life:
    """BackupError for what is no mark: then nobody can say whose shelf it is."""
    try:
        return msgspec.json.decode(data, type=Life)
    except msgspec.DecodeError as error:
        raise BackupError(f"{MARK} in {where} is unreadable: {error}") from error


def refusal(mark: Life | None, reach: int, own: Life, applied: int) -> str:
    """Why a shelf cannot be that of the cluster `own`, which has come to the entry `applied`; ""
    if it can. Shelves that an earlier release began have no mark."""
    if mark is not None and not own.knows(mark):
        return "it was begun by nodes with other data folders"
    if reach > applied:
        return f"it reaches log index {reach}, this cluster {applied}"
    return ""
