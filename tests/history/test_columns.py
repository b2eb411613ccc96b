"""Columns: what goes in comes out, what is alike takes no room, what is damaged is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.history import chunk
from cluster.history.chunk import Chunk
from cluster.history.columns import (
    Column,
    Each,
    Joined,
    Near,
    Rising,
    Runs,
    Same,
    Table,
    pack,
    pack_rising,
    unpack,
)

NOW_MS = 1_700_000_000_000

decode = msgspec.msgpack.Decoder(Column).decode  # type: ignore[arg-type]
few = settings(max_examples=200, deadline=None, derandomize=True)

numbers = st.integers(0, (1 << 63) - 1) | st.integers(NOW_MS, NOW_MS + 9)
texts = st.sampled_from(("", "send", "resize")) | st.text(max_size=3)
blobs = st.none() | st.sampled_from((b"", b"{}")) | st.binary(max_size=4)
values = st.one_of(*[st.lists(kind, min_size=1, max_size=200) for kind in (numbers, texts, blobs)])


def through(column: Column) -> Column:
    """As it comes back from the disk."""
    return decode(msgspec.msgpack.encode(column))


@few
@given(values)
def test_what_goes_in_comes_out(values: Sequence[Any]) -> None:
    assert unpack(through(pack(values)), len(values)) == values


@few
@given(st.sets(numbers, min_size=1))
def test_ids_come_out_too(ids: set[int]) -> None:
    assert unpack(through(pack_rising(sorted(ids))), len(ids)) == sorted(ids)


@pytest.mark.parametrize(
    ("values", "kind", "bytes_max"),
    [
        ([NOW_MS] * 1000, Same, 12),
        ([b"x" * 100] * 1000, Same, 110),
        ([NOW_MS] * 500 + [NOW_MS + 7] * 500, Runs, 40),
        ([NOW_MS + n * 7 % 256 for n in range(1000)], Near, 1020),
        ([NOW_MS + n * 7919 % 65_000 for n in range(1000)], Near, 2020),
        ([None, b"null"] * 500, Table, 1020),
        (["mail", "web", "web"] * 300, Table, 920),
        ([b"%d" % n for n in range(1000)], Joined, 3920),
        ([f"error {n}" for n in range(1000)], Each, 11_000),
        ([0, 1 << 64] * 10, Each, 150),  # further apart than eight bytes reach
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_is_alike_is_there_once(values: list[Any], kind: type, bytes_max: int) -> None:
    column = pack(values)
    assert type(column) is kind
    if values[-1] != 1 << 64:  # MessagePack has no such numbers, nor has a job
        assert len(msgspec.msgpack.encode(column)) <= bytes_max


def test_ids_in_a_row_are_a_step() -> None:
    column = pack_rising(range(10**6, 10**6 + 1000))
    assert column == Rising(10**6, Same(1))


@pytest.mark.parametrize(
    "column",
    [
        Near(0, "B", b"\0\0"),
        Near(0, "s", b"\0\0\0"),
        Rising(1, Near(0, "H", b"\0")),
        Runs([1, 2], [1, 1]),
        Runs([1, 2], [3]),
        Table(["a"], b"\0\1\0"),
        Table(["a"], b"\0"),
        Each(["a"]),
    ],
)
def test_a_column_that_does_not_fit_is_noticed(column: Column) -> None:
    with pytest.raises(ValueError, match="column"):
        unpack(column, 3)


def test_a_chunk_of_a_release_with_other_fields_is_read() -> None:
    values = {"job_id": [1, 2], "index": [7], "status": ["completed"], "name": ["send"]}
    encoded = chunk.encode(values, 2)
    count, fields = msgspec.msgpack.decode(encoded)
    known = Chunk.decode(chunk.COLUMNS, encoded)
    for changed in ([*fields, [0, "new"]], fields[:5]):
        other = Chunk.decode(chunk.COLUMNS, msgspec.msgpack.encode([count, changed]))
        assert [other.row(n) for n in (0, 1)] == [known.row(n) for n in (0, 1)]
    with pytest.raises(ValueError, match="status is missing"):
        Chunk.decode(chunk.COLUMNS, msgspec.msgpack.encode([count, fields[:2]]))


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"x" * 100, chunk.COLUMNS),  # too small
        (b'{"user": 1}' * 1000, chunk.COLUMNS_COMPRESSED),
        (bytes(n * n * 31 % 251 ^ n * 7919 >> 5 & 255 for n in range(5000)), chunk.COLUMNS),
    ],
)
def test_only_what_shrinks_is_compressed(data: bytes, form: int) -> None:
    stored_form, blob = chunk.compressed(data)
    assert stored_form == form
    assert len(blob) <= len(data)
