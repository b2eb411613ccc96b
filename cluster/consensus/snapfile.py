"""The snapshot file: header, CRC'd chunks, trailer. Written once, validated before every use.

The first chunk is the cluster's configuration at that point, the others are the machine's.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import struct
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .members import Members, decode_members, encode_members
from .storage import BufferedReader, Storage

MAGIC = b"QRTSNAP1"
FORMAT = 2
HEADER = struct.Struct("<8sI16sQQI")  # magic, format, cluster, index, term, crc
CHUNK = struct.Struct("<II")  # length, crc
TRAILER = struct.Struct("<IIQQI")  # the end mark, chunks crc, chunk count, content bytes, crc
END = 0xFFFFFFFF
CHUNK_BYTES_MAX = 1 << 30
NAME = re.compile(r"snap-(\d{20})-(\d{20})\.snap")


class SnapshotFileError(ValueError):
    """The file is not an intact snapshot of this cluster."""


@dataclass(frozen=True)
class SnapshotFile:
    """A finished snapshot: all entries up to `index`, whose entry was of `term`."""

    path: Path
    index: int
    term: int


class Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Readable(Protocol):
    def read(self, count: int, /) -> bytes:
        """Fewer bytes only at the end."""


def file_name(index: int, term: int) -> str:
    return f"snap-{index:020d}-{term:020d}.snap"


def write_content(
    file: Writer,
    *,
    cluster: bytes,
    index: int,
    term: int,
    members: Members,
    chunks: Iterable[bytes],
    keep_going: Callable[[], bool] = lambda: True,
) -> None:
    """Writes a whole snapshot; InterruptedError when `keep_going` says no between two chunks."""
    head = HEADER.pack(MAGIC, FORMAT, cluster, index, term, 0)[:-4]
    file.write(head + struct.pack("<I", zlib.crc32(head)))
    total_crc, count, size = 0, 0, 0
    for chunk in itertools.chain((encode_members(members),), chunks):
        if not keep_going():
            raise InterruptedError("the node that wanted this snapshot is gone")
        if len(chunk) > CHUNK_BYTES_MAX:
            raise OverflowError(f"a snapshot chunk of {len(chunk)} bytes")
        crc = zlib.crc32(chunk)
        file.write(CHUNK.pack(len(chunk), crc))
        file.write(chunk)
        total_crc = zlib.crc32(CHUNK.pack(len(chunk), crc), total_crc)
        count += 1
        size += len(chunk)
    tail = TRAILER.pack(END, total_crc, count, size, 0)[:-4]
    file.write(tail + struct.pack("<I", zlib.crc32(tail)))


def read_chunks(
    storage: Storage, path: Path, cluster: bytes, index: int, term: int
) -> Iterator[bytes]:
    """Yields the machine's content, checking every byte; SnapshotFileError on the first damage."""
    pieces = _read_pieces(storage, path, cluster, index, term)
    next(pieces, None)
    yield from pieces


def read_copy(file: Readable) -> tuple[bytes, int, int, Iterator[bytes]]:
    """(cluster, index, term, the machine's content) of a snapshot that is no node's own any more.

    Every byte is checked; SnapshotFileError on the first damage.
    """
    data = file.read(HEADER.size)
    if len(data) < HEADER.size:
        raise SnapshotFileError("the header is cut off")
    _, _, cluster, index, term, _ = HEADER.unpack(data)
    _check_header(data, cluster, index, term)
    pieces = _pieces_of(file)
    _members_in(next(pieces, b""))
    return cluster, index, term, pieces


def read_members(storage: Storage, snapshot: SnapshotFile, cluster: bytes) -> Members:
    """The configuration as of the snapshot; SnapshotFileError if it cannot be read."""
    pieces = _read_pieces(storage, snapshot.path, cluster, snapshot.index, snapshot.term)
    with contextlib.closing(pieces):
        return _members_in(next(pieces, b""))


def _members_in(chunk: bytes) -> Members:
    try:
        return decode_members(chunk)
    except ValueError as error:
        raise SnapshotFileError(str(error)) from error


def _read_pieces(
    storage: Storage, path: Path, cluster: bytes, index: int, term: int
) -> Generator[bytes, None, None]:
    with contextlib.closing(BufferedReader(storage, path)) as file:
        _check_header(file.read(HEADER.size), cluster, index, term)
        yield from _pieces_of(file)


def _pieces_of(file: Readable) -> Generator[bytes, None, None]:
    total_crc, count, size = 0, 0, 0
    while True:
        head = file.read(CHUNK.size)
        if len(head) < CHUNK.size:
            raise SnapshotFileError("the file ends too early")
        length, crc = CHUNK.unpack(head)
        if length == END:
            _check_trailer(head + file.read(TRAILER.size), total_crc, count, size)
            return
        if length > CHUNK_BYTES_MAX:
            raise SnapshotFileError("a chunk header is damaged")
        chunk = file.read(length)
        if len(chunk) < length or zlib.crc32(chunk) != crc:
            raise SnapshotFileError(f"chunk {count} is damaged")
        total_crc = zlib.crc32(head, total_crc)
        count += 1
        size += length
        yield chunk


def validate(storage: Storage, path: Path, cluster: bytes, index: int, term: int) -> None:
    """Reads the file once; raises SnapshotFileError or OSError if it is not intact."""
    pieces = _read_pieces(storage, path, cluster, index, term)
    _members_in(next(pieces, b""))
    for _ in pieces:
        pass


def _check_header(data: bytes, cluster: bytes, index: int, term: int) -> None:
    if len(data) < HEADER.size:
        raise SnapshotFileError("the header is cut off")
    magic, version, found, at_index, at_term, crc = HEADER.unpack(data)
    if magic != MAGIC or crc != zlib.crc32(data[:-4]):
        raise SnapshotFileError("the header is damaged")
    if version != FORMAT:
        raise SnapshotFileError(f"format {version} is unknown to this release")
    if found != cluster:
        raise SnapshotFileError("it belongs to another cluster")
    if (at_index, at_term) != (index, term):
        raise SnapshotFileError(f"it holds index {at_index}, not {index}")


def _check_trailer(data: bytes, total_crc: int, count: int, size: int) -> None:
    if len(data) != TRAILER.size:
        raise SnapshotFileError("the trailer has a wrong size")
    _, crc, chunks, content, own = TRAILER.unpack(data)
    if own != zlib.crc32(data[:-4]) or (crc, chunks, content) != (total_crc, count, size):
        raise SnapshotFileError("the trailer does not fit the content")
