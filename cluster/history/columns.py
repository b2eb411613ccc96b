"""One field of many rows in few bytes: like values once, near numbers as differences.

Jobs that finish together are alike: most of their fields have one value for all, times lie a few
milliseconds apart, ids follow each other. Working on a column at a time needs a few steps of the
interpreter for a thousand jobs instead of a few for each, and leaves little to compress.

Knows nothing of jobs. A list of a single value may stand for a column that has it in every row.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate, groupby
from operator import sub
from typing import Any

from msgspec import Struct

RUN_ROWS_MIN = 4  # on average; shorter runs are larger than differences
TABLE_VALUES_MAX = 256  # a place in the table is one byte
SAMPLE_ROWS = 64  # are looked at before all are

# Numbers of one, two, four and eight bytes, in a byte order that does not depend on the machine.
WIDTHS = ((1 << 8, "B"), (1 << 16, "H"), (1 << 32, "I"), (1 << 64, "Q"))


class Same(Struct, array_like=True, tag=0, frozen=True, gc=False):
    """One value in every row."""

    value: Any

    def unpack(self, count: int) -> list[Any]:
        return [self.value] * count


class Each(Struct, array_like=True, tag=1, frozen=True, gc=False):
    """A value per row, as it is."""

    values: list[Any]

    def unpack(self, count: int) -> list[Any]:
        return self.values


class Near(Struct, array_like=True, tag=2, frozen=True, gc=False):
    """Numbers, as what each is above the lowest."""

    low: int
    width: str
    above: bytes

    def unpack(self, count: int) -> list[int]:
        low = self.low
        return [low + above for above in struct.unpack(f"<{count}{self.width}", self.above)]


class Rising(Struct, array_like=True, tag=3, frozen=True, gc=False):
    """Numbers that grow from row to row, as the steps between them."""

    first: int
    steps: Same | Near

    def unpack(self, count: int) -> list[int]:
        return list(accumulate(self.steps.unpack(count - 1), initial=self.first))


class Runs(Struct, array_like=True, tag=6, frozen=True, gc=False):
    """Numbers that stay for a while: what they are and for how many rows."""

    values: list[int]
    rows: list[int]

    def unpack(self, count: int) -> list[int]:
        unpacked: list[int] = []
        for value, rows in zip(self.values, self.rows, strict=True):
            unpacked += [value] * rows
        return unpacked


class Table(Struct, array_like=True, tag=4, frozen=True, gc=False):
    """A few values that come again and again, and which of them each row has."""

    values: list[Any]
    places: bytes

    def unpack(self, count: int) -> list[Any]:
        values = self.values
        return [values[place] for place in self.places]


class Joined(Struct, array_like=True, tag=5, frozen=True, gc=False):
    """Bytes end to end. The length of an absent value is -1."""

    lengths: Same | Near
    data: bytes

    def unpack(self, count: int) -> list[bytes | None]:
        found: list[bytes | None] = []
        start, data = 0, self.data
        for length in self.lengths.unpack(count):
            if length < 0:
                found.append(None)
                continue
            found.append(data[start : start + length])
            start += length
        return found


Column = Same | Each | Near | Rising | Runs | Table | Joined


def pack(values: Sequence[Any]) -> Column:
    """The column of these values, which are all of one type (or bytes and None)."""
    first = values[0]
    if _is_same(values):
        return Same(first)
    if type(first) is int:
        return _runs(values) or _near(values) or Each(list(values))
    return _table(values) or _joined(values) or Each(list(values))


def pack_rising(values: Sequence[int]) -> Column:
    """The column of numbers each of which is greater than the one before."""
    if len(values) == 1:
        return Same(values[0])
    steps = list(map(sub, values[1:], values))
    packed = Same(steps[0]) if _is_same(steps) else _near(steps)
    return Rising(values[0], packed) if packed is not None else Each(list(values))


def unpack(column: Column, count: int) -> list[Any]:
    """A value per row. Raises ValueError for a column of another length."""
    try:
        values = column.unpack(count)
    except (struct.error, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"a column does not fit its chunk: {error}") from error
    if len(values) != count:
        raise ValueError(f"a column has {len(values)} rows, its chunk {count}")
    return values


def _is_same(values: Sequence[Any]) -> bool:
    first = values[0]
    return bool(values[-1] == first) and values.count(first) == len(values)


def _runs(values: Sequence[int]) -> Runs | None:
    if len(list(groupby(values[:SAMPLE_ROWS]))) > SAMPLE_ROWS // RUN_ROWS_MIN:
        return None
    runs = [(value, len(list(rows))) for value, rows in groupby(values)]
    if len(runs) > len(values) // RUN_ROWS_MIN:
        return None
    return Runs([value for value, _ in runs], [rows for _, rows in runs])


def _near(values: Sequence[int]) -> Near | None:
    low = min(values)
    span = max(values) - low
    for bound, width in WIDTHS:
        if span < bound:
            above = [value - low for value in values]
            return Near(low, width, struct.pack(f"<{len(above)}{width}", *above))
    return None


def _table(values: Sequence[Any]) -> Table | None:
    if len(set(values[:SAMPLE_ROWS])) > SAMPLE_ROWS // 4:
        return None
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    if len(places) > min(TABLE_VALUES_MAX, len(values) // 2):
        return None
    return Table(list(places), bytes(map(places.__getitem__, values)))


def _joined(values: Sequence[Any]) -> Joined | None:
    if not isinstance(values[0], bytes | None):
        return None
    lengths = [-1 if value is None else len(value) for value in values]
    packed = Same(lengths[0]) if _is_same(lengths) else _near(lengths)
    if packed is None:  # cannot be, lengths are small
        return None
    return Joined(packed, b"".join([value for value in values if value is not None]))
