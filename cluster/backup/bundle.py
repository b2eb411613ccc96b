"""The backup file: a plain tar of the manifest, the snapshot as the node keeps it, and perhaps the
history. What is in it is checked against the manifest before anything is made of it.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .manifest import MANIFEST, Manifest, Part, decode_manifest, encode_manifest

PIECE_BYTES = 1 << 20
END = bytes(2 * tarfile.BLOCKSIZE)  # of a tar


class BackupError(Exception):
    """The backup cannot be made, read or restored; one line with the file and the fix."""


def measure(file: BinaryIO) -> Part:
    """Size and checksum of the rest of a file, which is then back at its beginning."""
    digest, size = hashlib.sha256(), 0
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
        size += len(piece)
    file.seek(0)
    return Part(size, digest.hexdigest())


def stream(manifest: Manifest, files: dict[str, BinaryIO]) -> Iterator[bytes]:
    """The bytes of the backup, piece by piece; `files` are read once, from where they stand."""
    text = encode_manifest(manifest)
    yield _head(MANIFEST, len(text), manifest.created_ms)
    yield text + _padding(len(text))
    for name, part in manifest.parts.items():
        yield _head(name, part.bytes, manifest.created_ms)
        left = part.bytes
        while left:
            piece = files[name].read(min(PIECE_BYTES, left))
            if not piece:
                raise BackupError(f"{name} became shorter while it was sent; try again")
            left -= len(piece)
            yield piece
        yield _padding(part.bytes)
    yield END


def _head(name: str, size: int, created_ms: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, created_ms // 1000, 0o600
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


class Bundle:
    """A backup file that was opened; a context manager."""

    def __init__(self, path: Path, tar: tarfile.TarFile, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._tar = tar

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *error: object) -> None:
        self._tar.close()

    def has(self, name: str) -> bool:
        return name in self.manifest.parts

    def open(self, name: str) -> BinaryIO:
        """One part as a file. BackupError if it is not there."""
        try:
            file = self._tar.extractfile(name)
        except (KeyError, tarfile.TarError) as error:
            raise BackupError(f"{self.path} has no {name}: take another backup") from error
        assert isinstance(file, io.BufferedReader)
        return file

    def check(self) -> None:
        """Reads every part; BackupError names what is not as written, or the missing end."""
        for name, part in self.manifest.parts.items():
            try:
                with self.open(name) as file:
                    found = measure(file)
            except (OSError, tarfile.TarError) as error:
                raise BackupError(f"{self.path}: {name} cannot be read: {error}") from error
            if found != part:
                raise BackupError(
                    f"{self.path}: {name} is damaged ({found.bytes} bytes, sha256 {found.sha256}; "
                    f"it had {part.bytes}, {part.sha256}): take another backup"
                )
        self._check_end()

    def _check_end(self) -> None:
        """A copy that stopped on its way is told even where all it lacks is the mark of the end."""
        last = max(self._tar.getmembers(), key=lambda info: info.offset_data)
        end = last.offset_data + last.size + len(_padding(last.size)) + len(END)
        size = self.path.stat().st_size
        if size < end:
            raise BackupError(f"{self.path} is cut off at {size} of {end} bytes: copy it again")


def open_bundle(path: Path) -> Bundle:
    """BackupError if there is no backup at `path`; its parts are not looked at yet."""
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115  (the bundle closes it)
    except FileNotFoundError:
        raise BackupError(f"{path} does not exist") from None
    except (OSError, tarfile.TarError) as error:
        raise BackupError(f"{path} is not a backup: {error}") from error
    try:
        first = tar.next()
        if first is None or first.name != MANIFEST:
            raise ValueError(f"it does not begin with {MANIFEST}")
        file = tar.extractfile(first)
        assert file is not None
        return Bundle(path, tar, decode_manifest(file.read()))
    except (OSError, ValueError, tarfile.TarError) as error:
        tar.close()
        raise BackupError(f"{path} is not a backup: {error}") from error
