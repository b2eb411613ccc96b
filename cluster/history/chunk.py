"""A chunk: rows of neighbouring jobs as one blob of columns, in the order of FinishedJob's fields.

A column that holds nothing but its field's default is left out, so the fields that most jobs do
not use cost a byte per chunk. Chunks of the first releases are compressed rows; they are read, not
written.
"""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from cluster.history import columns
from cluster.history.columns import Column, Same
from cluster.history.record import FinishedJob, Query

FIELDS = FinishedJob.__struct_fields__
ROWS, COLUMNS, COLUMNS_COMPRESSED = 1, 2, 3  # what a chunk's blob is
COMPRESSION_LEVEL = 1
ROW_BYTES = 300  # of memory, about, for a row of a chunk that is read, but for its data
COMPRESSED_FROM_BYTES = 512  # below it there is nothing to gain
COMPRESSION_SAMPLE_BYTES = 4096
COMPRESSION_GAIN_MIN = 0.3  # of the sample's bytes

Values = dict[str, Sequence[Any]]  # by field; a single value stands for every row


class _Packed(msgspec.Struct, array_like=True, gc=False):
    count: int
    columns: list[Column | None]


NESTED = ("tags", "attempts")
_PLACES = {name: place for place, name in enumerate(FIELDS)}
_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(FinishedJob)}

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode
_decode_rows = msgspec.msgpack.Decoder(list[FinishedJob]).decode


def encode(values: Values, count: int) -> bytes:
    """The columns of `count` rows with rising ids; `values` may leave out defaults."""
    packed: list[Column | None] = []
    for name in FIELDS:
        column = None
        if name in values:
            pack = columns.pack_rising if name == "job_id" else columns.pack
            column = pack(values[name])
            if isinstance(column, Same) and column.value == _DEFAULTS[name]:
                column = None
        packed.append(column)
    return _encode(_Packed(count, packed))


def compressed(encoded: bytes) -> tuple[int, bytes]:
    """The blob to store and its form. Columns leave little to gain but in payloads, so a sample
    decides whether it is worth the time."""
    if len(encoded) < COMPRESSED_FROM_BYTES:
        return COLUMNS, encoded
    middle = max(0, (len(encoded) - COMPRESSION_SAMPLE_BYTES) // 2)
    sample = encoded[middle : middle + COMPRESSION_SAMPLE_BYTES]
    smaller = len(zlib.compress(sample, COMPRESSION_LEVEL))
    if smaller > len(sample) * (1 - COMPRESSION_GAIN_MIN):
        return COLUMNS, encoded
    return COLUMNS_COMPRESSED, zlib.compress(encoded, COMPRESSION_LEVEL)


class Chunk:
    """A chunk as it is read: a row is made of its columns, and its types are checked, when somebody
    wants it."""

    def __init__(self, fields: list[Sequence[Any]], data_bytes: int = 0) -> None:
        self._fields = fields
        self.size_bytes = data_bytes + ROW_BYTES * len(fields[0])
        self.ids: Sequence[int] = self.column("job_id")
        self.indexes: Sequence[int] = self.column("index")

    @classmethod
    def empty(cls) -> Self:
        return cls([[] for _ in FIELDS])

    @classmethod
    def decode(cls, form: int, blob: bytes) -> Self:
        """Raises zlib.error, MsgspecError or ValueError for a damaged one."""
        if form == ROWS:
            data = zlib.decompress(blob)
            rows = _decode_rows(data)
            return cls([[getattr(row, name) for row in rows] for name in FIELDS], len(data))
        if form not in (COLUMNS, COLUMNS_COMPRESSED):
            raise ValueError(f"unknown form {form}")
        data = zlib.decompress(blob) if form == COLUMNS_COMPRESSED else blob
        packed = _decode(data)
        # A later release may have more fields, an earlier one fewer.
        given = [*packed.columns, *[None] * len(FIELDS)]
        fields = [
            _unpack(name, column, packed.count) for name, column in zip(FIELDS, given, strict=False)
        ]
        return cls(fields, len(data))

    def column(self, name: str) -> Sequence[Any]:
        """A field of all rows."""
        return self._fields[_PLACES[name]]

    def row(self, position: int) -> FinishedJob:
        """Raises MsgspecError for a damaged one."""
        return msgspec.convert([field[position] for field in self._fields], FinishedJob)

    def find(self, job_id: int) -> int | None:
        """The position of a job's row."""
        position = bisect.bisect_left(self.ids, job_id)
        if position < len(self.ids) and self.ids[position] == job_id:
            return position
        return None

    def matching(self, query: Query, before_id: int) -> Sequence[int]:
        """Positions of matching rows with smaller ids."""
        positions: Sequence[int] = range(bisect.bisect_left(self.ids, before_id))
        for name in ("status", "queue", "name"):
            wanted, values = getattr(query, name), self.column(name)
            if wanted is not None:
                positions = [each for each in positions if values[each] == wanted]
        if query.tag is not None:
            tags = self.column("tags")
            positions = [each for each in positions if query.tag in tags[each]]
        return positions


def gathered(rows: Sequence[tuple[Chunk, int]]) -> Values:
    """The columns of rows that lie in several chunks, for `encode`."""
    values: Values = {}
    for place, name in enumerate(FIELDS):
        found = [each._fields[place][position] for each, position in rows]
        # Read as lists, which nothing can look up; as they were, before they were written.
        values[name] = list(map(_frozen, found)) if name in NESTED else found
    return values


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _unpack(name: str, column: Column | None, count: int) -> Sequence[Any]:
    if column is None:
        if _DEFAULTS[name] is msgspec.NODEFAULT:
            raise ValueError(f"the column {name} is missing")
        return [_DEFAULTS[name]] * count
    return columns.unpack(column, count)
