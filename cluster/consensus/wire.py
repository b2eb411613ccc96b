"""The messages that members exchange and the frames that carry them.

A frame is lengths and CRCs, a MessagePack head (one of the types below, nothing else is accepted)
and an opaque blob. The blob of an append is encoded once and shared by all followers. Nothing here
opens a socket.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec

from .recovery import Entry

PROTOCOL = 2
FRAME = struct.Struct("<IIII")  # head length, blob length, crc of head, crc of blob
FRAME_BYTES_MAX = 32 << 20
HEAD_BYTES_MAX = 64 << 10
NUMBER_MAX = 1 << 62  # far beyond any log, far below where files and formats overflow
Natural = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
ENTRY_HEAD = struct.Struct("<QI")  # term, length


class Hello(msgspec.Struct, tag=1, array_like=True, frozen=True):
    """First frame of each side, after the secret was proved.

    A node that waits to be added knows no `cluster_id` yet; it sends an empty one to be told.
    """

    protocol: Natural
    cluster_id: bytes
    node_id: str
    folder_id: str
    boot_id: bytes
    meta: dict[str, str]


class Ping(msgspec.Struct, tag=2, array_like=True, frozen=True):
    """Keeps an idle connection known to be alive."""


class Append(msgspec.Struct, tag=3, array_like=True, frozen=True):
    """Entries after (prev_index, prev_term); an empty one is the heartbeat."""

    term: Natural
    seq: Natural
    commit_index: Natural
    prev_index: Natural
    prev_term: Natural
    count: Natural


class AppendReply(msgspec.Struct, tag=4, array_like=True, frozen=True):
    """`next_index - 1` is durable and matches if `success`; `reset` asks to go back there."""

    term: Natural
    seq: Natural
    next_index: Natural
    reset: bool
    success: bool


class RequestVote(msgspec.Struct, tag=5, array_like=True, frozen=True):
    term: Natural
    last_index: Natural
    last_term: Natural
    transfer: bool


class VoteReply(msgspec.Struct, tag=6, array_like=True, frozen=True):
    term: Natural


class PreVote(msgspec.Struct, tag=7, array_like=True, frozen=True):
    term: Natural  # the term the candidate would campaign in
    last_index: Natural
    last_term: Natural
    round: Natural


class PreVoteReply(msgspec.Struct, tag=8, array_like=True, frozen=True):
    term: Natural  # the voter's own term
    round: Natural
    granted: bool


class HigherTerm(msgspec.Struct, tag=9, array_like=True, frozen=True):
    """Tells a sender that its term is over (C3)."""

    term: Natural


class TimeoutNow(msgspec.Struct, tag=10, array_like=True, frozen=True):
    term: Natural


class SnapshotChunk(msgspec.Struct, tag=11, array_like=True, frozen=True):
    """A piece of the snapshot file at `offset`; an empty one asks how far the receiver is."""

    term: Natural
    seq: Natural
    index: Natural
    index_term: Natural
    size: Natural
    offset: Natural


class SnapshotReply(msgspec.Struct, tag=12, array_like=True, frozen=True):
    """The receiver has everything below `offset`."""

    term: Natural
    seq: Natural
    index: Natural
    offset: Natural


class NoSpace(msgspec.Struct, tag=30, array_like=True, frozen=True):
    """The disk of the sender is full: it took nothing."""

    term: Natural


class ReadPing(msgspec.Struct, tag=13, array_like=True, frozen=True):
    """A leader asks whether it still leads in `term`; `seq` names the round."""

    term: Natural
    seq: Natural


class ReadPong(msgspec.Struct, tag=14, array_like=True, frozen=True):
    """Said only by who is in that term and follows the one who asked."""

    term: Natural
    seq: Natural


class ReadAsk(msgspec.Struct, tag=15, array_like=True, frozen=True):
    """A follower asks its leader for an index to read at."""

    seq: Natural


class ReadAnswer(msgspec.Struct, tag=16, array_like=True, frozen=True):
    """Everything committed before the question is at or below `index`; 0: ask somebody else."""

    seq: Natural
    index: Natural


class Refusal(msgspec.Struct, tag=20, array_like=True, frozen=True):
    """Last frame before a connection is closed on purpose; `reason` is a counter name."""

    reason: str


Message = (
    Hello
    | Refusal
    | Ping
    | Append
    | AppendReply
    | RequestVote
    | VoteReply
    | PreVote
    | PreVoteReply
    | HigherTerm
    | TimeoutNow
    | SnapshotChunk
    | SnapshotReply
    | NoSpace
    | ReadPing
    | ReadPong
    | ReadAsk
    | ReadAnswer
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


@dataclass(frozen=True)
class Blob:
    """Opaque bytes in write parts with their CRC, so that two followers cost one encoding."""

    parts: tuple[bytes, ...]
    size: int
    crc: int

    @staticmethod
    def of(parts: tuple[bytes, ...]) -> Blob:
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        return Blob(parts, sum(map(len, parts)), crc)


EMPTY = Blob((), 0, 0)


class FrameError(Exception):
    """The peer sent something that is not a frame; `reason` is a counter name."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def encode_frame(message: Message, blob: Blob = EMPTY) -> bytes:
    """The frame up to the blob; the caller writes `blob.parts` after it."""
    head = _encoder.encode(message)
    if len(head) > HEAD_BYTES_MAX or len(head) + blob.size > FRAME_BYTES_MAX:
        raise FrameError("oversize_out")
    lengths = struct.pack("<II", len(head), blob.size)
    crc = zlib.crc32(head, zlib.crc32(struct.pack("<I", blob.crc), zlib.crc32(lengths)))
    return lengths + struct.pack("<II", crc, blob.crc) + head


class FrameDecoder:
    """Turns a byte stream into (message, blob) pairs; FrameError ends the stream."""

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self.bytes_max = bytes_max

    def feed(self, data: bytes) -> list[tuple[Message, bytes]]:
        return list(self.frames(data))

    def frames(self, data: bytes) -> Iterator[tuple[Message, bytes]]:
        """One by one: the first may decide how much the next may hold."""
        buffer = self._buffer
        buffer += data
        offset = 0
        try:
            for message, blob, end in self._complete(buffer):
                offset = end
                yield message, blob
        finally:
            if offset:
                del buffer[:offset]

    def _complete(self, buffer: bytearray) -> Iterator[tuple[Message, bytes, int]]:
        offset = 0
        while len(buffer) - offset >= FRAME.size:
            head_size, blob_size, head_crc, blob_crc = FRAME.unpack_from(buffer, offset)
            if head_size > HEAD_BYTES_MAX or head_size + blob_size > self.bytes_max:
                raise FrameError("oversize")
            start = offset + FRAME.size
            end = start + head_size + blob_size
            if len(buffer) < end:
                break
            with memoryview(buffer) as view:
                head = bytes(view[start : start + head_size])
                blob = bytes(view[start + head_size : end])
                lengths = bytes(view[offset : offset + 8])
            check = zlib.crc32(struct.pack("<I", blob_crc), zlib.crc32(lengths))
            if zlib.crc32(head, check) != head_crc or zlib.crc32(blob) != blob_crc:
                raise FrameError("bad_crc")
            yield _decode(head), blob, end
            offset = end

    @property
    def is_inside_frame(self) -> bool:
        """A large frame is arriving: the sender lives even if nothing complete came yet."""
        return bool(self._buffer)


def _decode(head: bytes) -> Message:
    try:
        return _decoder.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError("bad_message") from error


def encode_entries(entries: list[Entry]) -> Blob:
    """Commands are passed on untouched; indexes follow from the append's `prev_index`."""
    parts: list[bytes] = []
    for command, _, term in entries:
        parts.append(ENTRY_HEAD.pack(term, len(command)))
        parts.append(command)
    return Blob.of(tuple(parts))


def decode_entries(blob: bytes, count: int, first_index: int) -> list[Entry]:
    """FrameError unless the blob holds exactly `count` entries."""
    entries: list[Entry] = []
    offset = 0
    for index in range(first_index, first_index + count):
        if offset + ENTRY_HEAD.size > len(blob):
            raise FrameError("bad_entries")
        term, size = ENTRY_HEAD.unpack_from(blob, offset)
        offset += ENTRY_HEAD.size
        if size < 1 or offset + size > len(blob):
            raise FrameError("bad_entries")
        entries.append((blob[offset : offset + size], index, term))
        offset += size
    if offset != len(blob):
        raise FrameError("bad_entries")
    return entries
