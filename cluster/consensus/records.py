"""The journal's bytes: segment headers, CRC'd batches and the records inside them.

One stream carries entries, term and vote, so they can never be reordered against each other
(openraft, docs/protocol/io_ordering). A truncation is a record, never a rewrite. Pure functions:
files are opened elsewhere.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

FORMAT_VERSION = 1
SEGMENT_MAGIC = b"QRTSEG1\n"
SEGMENT_HEADER = struct.Struct("<8sIQ8s16sI")  # magic, version, sequence, nonce, cluster, crc
BATCH_HEADER = struct.Struct("<8sIQI")  # nonce of the segment, body length, sequence, crc
BATCH_CHECKED = 20  # bytes of the batch header that its CRC covers
RECORD = struct.Struct("<BQQI")  # kind, a, b, payload length
BODY_BYTES_MAX = (1 << 32) - 1

ENTRY = 1  # a=index b=term payload=command
HARD_STATE = 2  # a=term b=1 if voted, payload=vote
TRUNCATE = 3  # a=first removed index b=term of the entry before it
RESET = 4  # a=index b=term: the log is empty and continues after this point
BASE = 5  # a=index b=term: where the log stood when this segment began


@dataclass(frozen=True)
class SegmentHeader:
    sequence: int
    nonce: bytes
    cluster: bytes

    def encode(self) -> bytes:
        head = SEGMENT_HEADER.pack(
            SEGMENT_MAGIC, FORMAT_VERSION, self.sequence, self.nonce, self.cluster, 0
        )[:-4]
        return head + struct.pack("<I", zlib.crc32(head))

    @staticmethod
    def decode(data: bytes) -> SegmentHeader | None:
        """None when the bytes are not a complete, intact header of this format."""
        if len(data) < SEGMENT_HEADER.size:
            return None
        magic, version, sequence, nonce, cluster, crc = SEGMENT_HEADER.unpack_from(data)
        intact = crc == zlib.crc32(data[: SEGMENT_HEADER.size - 4])
        if magic != SEGMENT_MAGIC or version != FORMAT_VERSION or not intact:
            return None
        return SegmentHeader(sequence, nonce, cluster)


def record(kind: int, a: int, b: int, payload: bytes = b"") -> list[bytes]:
    """A record as write parts; the payload is passed on untouched."""
    head = RECORD.pack(kind, a, b, len(payload))
    return [head, payload] if payload else [head]


def hard_state(term: int, vote: str | None) -> list[bytes]:
    return record(HARD_STATE, term, 0 if vote is None else 1, (vote or "").encode())


def frame_batch(nonce: bytes, sequence: int, parts: list[bytes]) -> list[bytes]:
    """Puts the CRC'd header before the parts; hashing large parts releases the GIL."""
    size = sum(map(len, parts))
    if size > BODY_BYTES_MAX:
        raise OverflowError(f"a journal batch of {size} bytes")
    head = BATCH_HEADER.pack(nonce, size, sequence, 0)[:BATCH_CHECKED]
    crc = zlib.crc32(head)
    for part in parts:
        crc = zlib.crc32(part, crc)
    return [head + struct.pack("<I", crc), *parts]


def batch_at(
    data: memoryview, offset: int, nonce: bytes, *, checked: bool = True
) -> tuple[int, memoryview] | None:
    """(sequence, body) of the intact batch that starts at `offset`, else None."""
    if offset + BATCH_HEADER.size > len(data):
        return None
    found, size, sequence, crc = BATCH_HEADER.unpack_from(data, offset)
    start = offset + BATCH_HEADER.size
    if found != nonce or start + size > len(data):
        return None
    body = data[start : start + size]
    if checked and zlib.crc32(body, zlib.crc32(data[offset : offset + BATCH_CHECKED])) != crc:
        return None
    return sequence, body


def any_batch_after(data: bytes, offset: int, nonce: bytes) -> int | None:
    """Offset of an intact batch beyond `offset`: then the damage there is not a torn tail."""
    view = memoryview(data)
    position = data.find(nonce, offset + 1)
    while position != -1:
        if batch_at(view, position, nonce) is not None:
            return position
        position = data.find(nonce, position + 1)
    return None


def records_in(body: memoryview) -> Iterator[tuple[int, int, int, bytes]]:
    """(kind, a, b, payload) of each record; ValueError if they do not fill the body exactly."""
    offset = 0
    while offset < len(body):
        if offset + RECORD.size > len(body):
            raise ValueError("a record header is cut off inside an intact batch")
        kind, a, b, size = RECORD.unpack_from(body, offset)
        offset += RECORD.size
        if offset + size > len(body):
            raise ValueError("a record is cut off inside an intact batch")
        yield kind, a, b, bytes(body[offset : offset + size])
        offset += size
