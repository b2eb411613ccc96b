"""Arbitrary bytes at the decoder and the handshake, arbitrary messages at a whole core."""

from __future__ import annotations

import itertools
import struct
import sys
import tempfile
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from consensus_world import World, command
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cluster.consensus.handshake import (
    GREETING_BYTES,
    MAGIC,
    PROOF_BYTES,
    Handshake,
    HandshakeError,
)
from cluster.consensus.sanity import TERM_LEAP_MAX, absurdity_of
from cluster.consensus.wire import (
    FRAME_BYTES_MAX,
    HEAD_BYTES_MAX,
    NUMBER_MAX,
    Append,
    AppendReply,
    Blob,
    FrameDecoder,
    FrameError,
    Hello,
    HigherTerm,
    Message,
    Ping,
    PreVote,
    PreVoteReply,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
    decode_entries,
    encode_entries,
    encode_frame,
)

KEY = b"k" * 32
REASONS = {"oversize", "bad_crc", "bad_message", "bad_entries"}
TYPES: tuple[type[Any], ...] = Message.__args__  # type: ignore[attr-defined]
quick = settings(max_examples=100, deadline=None)

# Numbers near every border that matters.
numbers = st.one_of(
    st.integers(0, 12),
    st.integers(0, NUMBER_MAX),
    st.sampled_from([2**31, 2**32, 2**53, NUMBER_MAX - 1, NUMBER_MAX]),
)


def built(kind: type[Any], numbers: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    """Messages of one type with these numbers in every field that is one."""
    values = {
        bool: st.booleans(),
        bytes: st.binary(max_size=20),
        str: st.text(max_size=20),
        dict[str, str]: st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    }
    fields = msgspec.structs.fields(kind)
    return st.builds(kind, **{field.name: values.get(field.type, numbers) for field in fields})


messages = st.one_of([built(kind, numbers) for kind in TYPES])


def frame(head: bytes, blob: bytes = b"") -> bytes:
    """A frame whose checks are right, whatever its head says."""
    lengths = struct.pack("<II", len(head), len(blob))
    crc = zlib.crc32(head, zlib.crc32(struct.pack("<I", zlib.crc32(blob)), zlib.crc32(lengths)))
    return lengths + struct.pack("<II", crc, zlib.crc32(blob)) + head + blob


def decode_all(data: bytes, cuts: list[int]) -> list[tuple[Message, bytes]]:
    """FrameError is all that may come out."""
    decoder, found, start = FrameDecoder(), [], 0
    for end in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        found += decoder.feed(data[start:end])
        start = end
    return found


# The decoder --------------------------------------------------------------------------------


@quick
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_arbitrary_bytes_are_a_frame_error_or_nothing(data: bytes, cuts: list[int]) -> None:
    try:
        assert decode_all(data, cuts) == []
    except FrameError as error:
        assert error.reason in REASONS


@quick
@given(messages, st.binary(max_size=60), st.lists(st.integers(0, 500), max_size=6))
def test_every_message_survives_the_wire_at_every_cut(
    message: Message, blob: bytes, cuts: list[int]
) -> None:
    data = encode_frame(message, Blob.of((blob,))) + blob
    assert decode_all(data + data, cuts) == [(message, blob)] * 2


@quick
@given(messages, st.binary(max_size=40), st.data())
def test_a_damaged_frame_is_never_a_message(message: Message, blob: bytes, data: Any) -> None:
    whole = bytearray(encode_frame(message, Blob.of((blob,))) + blob)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(whole) - 1))
        whole[position] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_all(bytes(whole), [])
    except FrameError as error:
        assert error.reason in REASONS
    else:
        assert found in ([], [(message, blob)])  # or two flips undid each other


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.binary(max_size=9))
    | st.text(max_size=9)
    | st.floats(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@quick
@given(
    st.one_of(
        anything,
        st.tuples(st.integers(0, 20)).flatmap(
            lambda tag: st.lists(anything, max_size=8).map(lambda rest: [*tag, *rest])
        ),
    )
)
def test_any_messagepack_is_one_of_our_types_or_refused(value: Any) -> None:
    try:
        ((message, _),) = decode_all(frame(msgspec.msgpack.encode(value)), [])
    except FrameError as error:
        assert error.reason == "bad_message"
        return
    assert isinstance(message, TYPES)
    for number in msgspec.structs.astuple(message):
        assert not isinstance(number, int) or 0 <= number <= NUMBER_MAX


@pytest.mark.parametrize(
    "bomb", [b"\x91", b"\x81\x00", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"]
)
@pytest.mark.parametrize(
    "prefix", [b"", b"\x92\x09\x01", b"\x93\x02", b"\x96\x01\x01\xc4\x00\xa0\xc4\x00"]
)
def test_nested_and_huge_containers_are_refused(bomb: bytes, prefix: bytes) -> None:
    """Also behind a good message, where unknown fields are skipped, and inside of its fields."""
    head = prefix[:1] + prefix[1:] + bomb * ((HEAD_BYTES_MAX - len(prefix)) // len(bomb))
    limit = sys.getrecursionlimit()
    with pytest.raises(FrameError, match="bad_message"):
        FrameDecoder().feed(frame(head))
    assert sys.getrecursionlimit() == limit


def test_a_length_is_refused_before_its_memory_is_taken() -> None:
    tracemalloc.start()
    try:
        for lengths in [(HEAD_BYTES_MAX + 1, 0), (0, FRAME_BYTES_MAX + 1), (2**32 - 1, 2**32 - 1)]:
            with pytest.raises(FrameError, match="oversize"):
                FrameDecoder().feed(struct.pack("<IIII", *lengths, 0, 0))
        waiting = FrameDecoder()
        waiting.feed(struct.pack("<IIII", 10, FRAME_BYTES_MAX - 10, 0, 0))
        assert waiting.is_inside_frame
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@quick
@given(st.binary(max_size=200), st.integers(-3, 2**63), numbers)
@example(b"", -1, 5)
@example(b"", 2**62, 5)
def test_any_blob_is_exactly_its_entries_or_refused(blob: bytes, count: int, first: int) -> None:
    try:
        entries = decode_entries(blob, count, first)
    except FrameError as error:
        assert error.reason == "bad_entries"
        return
    assert len(entries) == max(count, 0)
    assert b"".join(encode_entries(entries).parts) == blob


# The handshake ------------------------------------------------------------------------------


@quick
@given(st.lists(st.binary(max_size=80), max_size=8), st.booleans())
def test_arbitrary_bytes_prove_nothing(pieces: list[bytes], is_dialer: bool) -> None:
    handshake = Handshake(KEY, is_dialer=is_dialer)
    handshake.begin()
    try:
        for piece in pieces:
            handshake.feed(piece)
    except HandshakeError as error:
        assert error.reason in ("bad_greeting", "bad_proof", "tls_on_one_side")
    assert handshake.rest is None


@quick
@given(st.binary(max_size=150), st.integers(0, GREETING_BYTES + PROOF_BYTES), st.integers(1, 255))
def test_a_changed_byte_ends_the_handshake(tail: bytes, position: int, flip: int) -> None:
    dialer, listener = Handshake(KEY, is_dialer=True), Handshake(KEY, is_dialer=False)
    sent = bytearray(dialer.begin())
    probe = Handshake(KEY, is_dialer=False, nonce=listener._own)
    sent += dialer.feed(probe.feed(bytes(sent)))
    if position < len(sent):
        sent[position] ^= flip
        with pytest.raises(HandshakeError):
            listener.feed(bytes(sent) + tail)
        assert listener.rest is None
    else:
        listener.feed(bytes(sent) + tail)
        assert listener.rest == tail
    assert bytes(sent[: len(MAGIC)]) == MAGIC or position < len(MAGIC)


# The core -----------------------------------------------------------------------------------

BASE = [command("one", 2, 1), command("two", 3, 1), command("three", 4, 2)]
PEERS = ("b:1", "c:1")
# Stopping is right when somebody who may lead contradicts what is committed.
MAY_STOP = ("the leader differs at committed entry",)

entries = st.lists(
    st.tuples(st.binary(min_size=1, max_size=5), st.just(0), numbers), max_size=3
).map(encode_entries)
blobs = st.one_of(st.just(b""), st.binary(max_size=60), entries.map(lambda b: b"".join(b.parts)))
small = st.integers(0, 6)
likely = st.one_of(small, small, numbers)  # mostly near the state of the core, so that it matters


hostile = st.one_of([built(kind, likely) for kind in TYPES if kind is not Hello])
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(PEERS), hostile, blobs),
        st.tuples(st.sampled_from(PEERS), st.sampled_from(["reconnect", "time"]), st.just(b"")),
    ),
    min_size=1,
    max_size=12,
)


def check(world: World, committed: list[Any]) -> None:
    """What no message may break: a sound log, a commit index within it, and what was committed."""
    log = world.journal[0:]
    for before, after in itertools.pairwise(log):
        assert after[1] == before[1] + 1
        assert after[2] >= before[2]
    engine = world.engine
    assert log[-1][2] <= engine.term() <= NUMBER_MAX
    assert engine.applied_index() <= engine.commit_index() <= log[-1][1]
    known = {entry[1]: entry for entry in log}
    for entry in committed:
        assert known.get(entry[1], entry) == entry
    for index in range(2, engine.commit_index() + 1):
        if index in known and known[index] not in committed:
            committed.append(known[index])
    for reason in world.fatal:
        assert any(mark in reason for mark in MAY_STOP), reason


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(steps, st.booleans())
@example([("b:1", Append(NUMBER_MAX, 1, NUMBER_MAX, 4, 2, 0), b"")], False)
@example([("b:1", HigherTerm(NUMBER_MAX), b"")], True)
@example([("b:1", Append(3, 1, 1, 4, 2, NUMBER_MAX), b"x")], False)
@example([("b:1", SnapshotChunk(3, 1, 9, 2, 0, 0), b"")], False)
@example([("b:1", SnapshotChunk(3, 1, 9, 2, NUMBER_MAX, 0), b"x")], False)
@example([("b:1", AppendReply(5, 9, NUMBER_MAX, False, True), b"")], True)
@example([("b:1", AppendReply(5, 9, 0, True, False), b"")], True)
def test_no_message_of_a_member_breaks_a_core(script: list[Any], leads: bool) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        world = World(patch, Path(folder), PEERS, entries=list(BASE), term=2)
        world.connect(*PEERS)
        if leads:
            world.win_election("b:1")
        committed: list[Any] = []
        check(world, committed)
        for peer, what, blob in script:
            if what == "reconnect":
                world.disconnect(peer)
                world.connect(peer)
            elif what == "time":
                world.pass_time(0.7)
            else:
                world.receive(peer, what, blob)
            check(world, committed)
            if world.fatal:
                return


def test_after_an_absurd_term_elections_still_work(tmp_path: Path) -> None:
    """One message with the highest term there is must not end the cluster for ever."""
    with pytest.MonkeyPatch.context() as patch:
        world = World(patch, tmp_path, PEERS, entries=list(BASE), term=2)
        world.connect(*PEERS)
        for message in (
            HigherTerm(NUMBER_MAX),
            PreVoteReply(NUMBER_MAX, 1, False),
            RequestVote(NUMBER_MAX, 9, 9, True),
            Append(NUMBER_MAX, 1, 1, 4, 2, 0),
            SnapshotChunk(NUMBER_MAX, 1, 9, 2, 10, 0),
        ):
            world.receive("b:1", message)
        assert world.engine.term() == 2
        assert world.core.counters.dropped["absurd_term"] == 5
        world.win_election("b:1")
        assert world.engine.term() == 3


def test_a_commit_index_out_of_the_air_is_forgotten_with_its_leader(tmp_path: Path) -> None:
    """Else one slip of one leader would keep a follower "not caught up" for ever."""
    with pytest.MonkeyPatch.context() as patch:
        world = World(patch, tmp_path, PEERS, entries=list(BASE), term=2)
        world.connect(*PEERS)
        world.receive("b:1", Append(3, 1, NUMBER_MAX, 4, 2, 0))
        assert world.core.known_commit_index() == NUMBER_MAX
        assert world.engine.commit_index() == 4  # what matched, not what was claimed
        world.receive("c:1", Append(4, 1, 4, 4, 2, 0))
        assert world.core.known_commit_index() == 4


@pytest.mark.parametrize(
    ("message", "blob_bytes"),
    [
        (Append(3, 1, 1, 4, 4, 0), 0),
        (Append(3, 1, 1, 4, 2, 0), 9),
        (Append(3, 1, 1, 4, 2, 2), 0),
        (RequestVote(3, 9, 4, False), 0),
        (PreVote(3, 9, 4, 1), 0),
        (SnapshotChunk(3, 1, 9, 4, 10, 0), 10),
        (SnapshotChunk(3, 1, 9, 2, 10, 8), 3),
    ],
)
def test_a_message_that_contradicts_itself_is_dropped(message: Message, blob_bytes: int) -> None:
    assert absurdity_of(message, blob_bytes, 3) == "absurd_message"


@pytest.mark.parametrize(
    ("message", "blob_bytes"),
    [
        (Append(3, 1, 1, 4, 3, 0), 0),
        (Append(3, 1, 1, 4, 2, 1), 9),
        (HigherTerm(3 + TERM_LEAP_MAX), 0),
        (VoteReply(1), 0),
        (TimeoutNow(3), 0),
        (SnapshotReply(3, 1, 9, 2), 0),
        (SnapshotChunk(3, 1, 9, 2, 10, 8), 2),
        (Ping(), 0),
    ],
)
def test_what_can_be_meant_is_not(message: Message, blob_bytes: int) -> None:
    assert absurdity_of(message, blob_bytes, 3) == ""
