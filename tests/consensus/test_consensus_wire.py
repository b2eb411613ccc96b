"""Frames and the handshake: what strangers and broken links may send, and what it comes to."""

from __future__ import annotations

import os
import struct

import pytest

from cluster.consensus.handshake import Handshake, HandshakeError
from cluster.consensus.wire import (
    FRAME_BYTES_MAX,
    Append,
    Blob,
    FrameDecoder,
    FrameError,
    HigherTerm,
    PreVote,
    decode_entries,
    encode_entries,
    encode_frame,
)

KEY = b"k" * 32
ENTRIES = [(b"\x00one", 7, 2), (b"\x01", 8, 3)]


def frame_of_append() -> bytes:
    blob = encode_entries(ENTRIES)
    message = Append(3, 1, 5, 6, 2, len(ENTRIES))
    return encode_frame(message, blob) + b"".join(blob.parts)


def test_a_frame_arrives_whole_however_it_is_cut() -> None:
    data = frame_of_append() + encode_frame(HigherTerm(9))
    for step in (1, 3, 17, len(data)):
        decoder = FrameDecoder()
        found = []
        for start in range(0, len(data), step):
            found += decoder.feed(data[start : start + step])
        (append, blob), (higher, nothing) = found
        assert append == Append(3, 1, 5, 6, 2, 2)
        assert decode_entries(blob, 2, 7) == ENTRIES
        assert (higher, nothing) == (HigherTerm(9), b"")
        assert not decoder.is_inside_frame


def test_every_flipped_byte_is_noticed() -> None:
    data = frame_of_append()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        decoder = FrameDecoder()
        try:
            found = decoder.feed(bytes(damaged))
        except FrameError:
            continue
        assert found == []  # a longer length: the decoder waits for bytes that never come


def test_an_oversize_frame_is_refused_before_it_is_read() -> None:
    header = struct.pack("<IIII", 10, FRAME_BYTES_MAX, 0, 0)
    with pytest.raises(FrameError, match="oversize"):
        FrameDecoder().feed(header)
    with pytest.raises(FrameError, match="oversize_out"):
        encode_frame(HigherTerm(1), Blob((), FRAME_BYTES_MAX, 0))


def test_garbage_is_no_frame() -> None:
    with pytest.raises(FrameError):
        FrameDecoder().feed(os.urandom(200))


def test_an_unknown_message_type_is_refused() -> None:
    known = encode_frame(PreVote(1, 2, 3, 4))
    head = b"\x95\x63" + known[18:]  # tag 99 instead of 7
    import zlib

    lengths = struct.pack("<II", len(head), 0)
    crc = zlib.crc32(head, zlib.crc32(struct.pack("<I", 0), zlib.crc32(lengths)))
    with pytest.raises(FrameError, match="bad_message"):
        FrameDecoder().feed(lengths + struct.pack("<II", crc, 0) + head)


@pytest.mark.parametrize("count", [1, 3])
def test_a_blob_with_another_number_of_entries_is_refused(count: int) -> None:
    blob = b"".join(encode_entries(ENTRIES).parts)
    with pytest.raises(FrameError, match="bad_entries"):
        decode_entries(blob, count, 7)


def meet(dialer: Handshake, listener: Handshake) -> None:
    to_listener, to_dialer = dialer.begin(), listener.begin()
    while to_listener or to_dialer:
        to_dialer += listener.feed(to_listener) if to_listener else b""
        to_listener = dialer.feed(to_dialer) if to_dialer else b""
        to_dialer = b""


def test_both_sides_prove_the_secret() -> None:
    dialer, listener = Handshake(KEY, is_dialer=True), Handshake(KEY, is_dialer=False)
    meet(dialer, listener)
    assert dialer.rest == b""
    assert listener.rest == b""


def test_bytes_behind_the_proof_are_handed_on() -> None:
    dialer, listener = Handshake(KEY, is_dialer=True), Handshake(KEY, is_dialer=False)
    greeting = listener.feed(dialer.begin())
    proof = dialer.feed(greeting)
    for byte in proof:
        assert listener.rest is None
        answer = listener.feed(bytes([byte]))
    dialer.feed(answer + b"frames")
    assert dialer.rest == b"frames"


@pytest.mark.parametrize("wrong_side", ["dialer", "listener"])
def test_a_wrong_secret_is_refused(wrong_side: str) -> None:
    keys = {"dialer": KEY, "listener": KEY} | {wrong_side: b"x" * 32}
    dialer = Handshake(keys["dialer"], is_dialer=True)
    listener = Handshake(keys["listener"], is_dialer=False)
    with pytest.raises(HandshakeError, match="bad_proof"):
        meet(dialer, listener)
    assert listener.rest is None
    assert dialer.rest is None


def test_a_reflected_proof_is_refused() -> None:
    """An attacker without the secret sends a node's own greeting and proof back to it."""
    victim = Handshake(KEY, is_dialer=True)
    greeting = victim.begin()
    proof = victim.feed(greeting)
    with pytest.raises(HandshakeError, match="bad_proof"):
        victim.feed(proof)


def test_a_replayed_proof_is_refused() -> None:
    dialer, listener = Handshake(KEY, is_dialer=True), Handshake(KEY, is_dialer=False)
    recorded_greeting = dialer.begin()
    recorded_proof = dialer.feed(listener.feed(recorded_greeting))
    fresh = Handshake(KEY, is_dialer=False)
    fresh.feed(recorded_greeting)
    with pytest.raises(HandshakeError, match="bad_proof"):
        fresh.feed(recorded_proof)


def test_another_protocol_is_refused_at_its_first_bytes() -> None:
    with pytest.raises(HandshakeError, match="bad_greeting"):
        Handshake(KEY, is_dialer=False).feed(b"GET / HTTP/1.1\r\n")
