"""What a backup says about itself: the first file of every backup, readable by people."""

from __future__ import annotations

import msgspec

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state.snap"
HISTORY = "history.mp"


class Part(msgspec.Struct, frozen=True):
    """One file of the backup. `sha256` in hex."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`index` and `term` are the place in the log; times are epoch milliseconds.

    The counts are what the node held when the backup was asked for, a little before or after that
    place: something to look at, not to check against. `history_lacks` are stretches of the log
    (first and last entry) of whose finished jobs the history has not all; None if there is no
    history, or the release did not say.
    """

    format: int = FORMAT
    cluster_id: str
    node_id: str
    release: str
    index: int
    term: int
    created_ms: int
    jobs: int
    dead_letters: int
    schedules: int
    has_history: bool
    history_lacks: tuple[tuple[int, int], ...] | None = None
    parts: dict[str, Part]


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """ValueError for what is no manifest of a format that this release reads."""
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found != FORMAT:
            raise ValueError(f"format {found} is unknown to this release, which reads {FORMAT}")
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise ValueError(f"{MANIFEST} is unreadable: {error}") from error


class _Format(msgspec.Struct):
    format: int
