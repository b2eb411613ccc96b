"""Time zones as stretches of constant offset, from the `tzdata` package and never from the system.

So every node of one release computes the same instants, and can say with which release. A zone's
file lists its changes up to some year and ends with a rule for all later ones; the rule is not
parsed but probed: week by week, then halved down to the second.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from io import BytesIO
from zoneinfo import ZoneInfo

from msgspec import Struct

from cluster.policy.timing.days import DAY_MAX, DAY_S, EPOCH_DAY
from cluster.policy.timing.errors import TimingError

RELEASES = f"tzdata {version('tzdata')}, croniter {version('croniter')}"
END_S = DAY_MAX * DAY_S
WEEK_S = 7 * DAY_S
NAME_CHARACTERS_MAX = 64


class Change(Struct, frozen=True, gc=False):
    """From `at_s` on the offset is `after_s`."""

    at_s: int
    before_s: int
    after_s: int


class Stretch(Struct, frozen=True, gc=False):
    """[start, end) in UTC with one offset, and the offsets of its neighbours."""

    start_s: int
    end_s: int
    offset_s: int
    before_s: int
    following_s: int


class Zone:
    """One IANA zone; all times are whole seconds since 1970."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.info = ZoneInfo.from_file(BytesIO(data), key=name)
        self._listed, rule = _read(data)
        self._ruled = b"," in rule  # the rule for later years has a summer time
        self._last_year = _year(self._listed[-1]) if self._listed else 0
        self._years: dict[int, tuple[Change, ...]] = {}

    def offset_s(self, at_s: int) -> int:
        offset = datetime.fromtimestamp(at_s, self.info).utcoffset()
        assert offset is not None
        return offset.days * DAY_S + offset.seconds

    def abbreviation(self, at_s: int) -> str:
        return datetime.fromtimestamp(at_s, self.info).tzname() or ""

    def local_s(self, at_s: int) -> int:
        return at_s + self.offset_s(at_s)

    def stretches(self, from_s: int) -> Iterator[Stretch]:
        """Those that end after `from_s`, in order; long ones come in several pieces."""
        offset_s = self.offset_s(from_s)
        if not self._moves(_year(from_s) - 1):
            yield Stretch(from_s, END_S, offset_s, offset_s, offset_s)
            return
        year = _year(from_s)
        changes = [*self._changes(year - 1), *self._changes(year)]
        at = bisect_right(changes, from_s, key=lambda change: change.at_s)
        start_s, before_s = from_s, offset_s
        if at:
            start_s, before_s = changes[at - 1].at_s, changes[at - 1].before_s
        while start_s < END_S:
            for change in changes[at:]:
                yield Stretch(start_s, change.at_s, offset_s, before_s, change.after_s)
                start_s, before_s, offset_s = change.at_s, offset_s, change.after_s
            year += 1
            if not self._moves(year):
                yield Stretch(start_s, END_S, offset_s, before_s, offset_s)
                return
            changes, at = list(self._changes(year)), 0

    def instant_s(self, local_s: int) -> int:
        """The first instant at which the local time is `local_s`, or has just jumped over it."""
        for stretch in self.stretches(local_s - 2 * DAY_S):
            if local_s < stretch.end_s + stretch.offset_s:
                return max(stretch.start_s, local_s - stretch.offset_s)
        return END_S

    def _moves(self, year: int) -> bool:
        """Whether the offset can change in this year or later."""
        return self._ruled or year <= self._last_year

    def _changes(self, year: int) -> tuple[Change, ...]:
        found = self._years.get(year)
        if found is None:
            found = self._years[year] = tuple(self._find_changes(year))
        return found

    def _find_changes(self, year: int) -> Iterator[Change]:
        if not self._moves(year):
            return
        first_s, end_s = _year_start_s(year), _year_start_s(year + 1)
        listed = [s for s in self._listed if first_s <= s < end_s]
        probed = {*range(first_s, end_s, WEEK_S), *listed, *(s - 1 for s in listed), end_s - 1}
        left_s, left = first_s - 1, self.offset_s(first_s - 1)
        for right_s in sorted(probed):
            right = self.offset_s(right_s)
            if right != left:
                yield Change(self._halve(left_s, right_s, left), left, right)
            left_s, left = right_s, right

    def _halve(self, left_s: int, right_s: int, left: int) -> int:
        """The first second after `left_s` whose offset is no longer `left`."""
        while right_s - left_s > 1:
            middle_s = (left_s + right_s) // 2
            if self.offset_s(middle_s) == left:
                left_s = middle_s
            else:
                right_s = middle_s
        return right_s


@lru_cache(maxsize=1024)
def zone(name: str) -> Zone:
    """Raises TimingError for a name that tzdata does not have."""
    if name not in _names():
        raise TimingError(_unknown(name), "/timezone")
    path = files("tzdata").joinpath("zoneinfo", *name.split("/"))
    return Zone(name, path.read_bytes())


def local_text(instant_ms: int, timezone: str) -> str:
    """Like 2027-03-28T03:00:00+02:00[Europe/Berlin]; milliseconds only where there are any."""
    moment = zone(timezone)
    at_s, ms = divmod(instant_ms, 1000)
    offset_s = moment.offset_s(at_s)
    local = datetime.fromtimestamp(at_s + offset_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    sign = "-" if offset_s < 0 else "+"
    hours, minutes = divmod(abs(offset_s) // 60, 60)
    fraction = f".{ms:03}" if ms else ""
    return f"{local}{fraction}{sign}{hours:02}:{minutes:02}[{timezone}]"


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


def _unknown(name: str) -> str:
    if len(name) > NAME_CHARACTERS_MAX:
        return "the time zone is no IANA name: write one like Europe/Berlin"
    by_lower = {known.lower(): known for known in _names()}
    close = get_close_matches(name.lower(), by_lower, n=1)
    like = by_lower[close[0]] if close else "Europe/Berlin"
    return f"there is no time zone {name!r}: write an IANA name like {like}"


def _read(data: bytes) -> tuple[list[int], bytes]:
    """The listed changes and the rule of a TZif file: what `zoneinfo` reads and does not show."""
    old = struct.unpack(">6l", data[20:44])
    skipped = _body_bytes(old, 4)
    head = data[44 + skipped :]
    counts = struct.unpack(">6l", head[20:44])
    times = struct.unpack(f">{counts[3]}q", head[44 : 44 + 8 * counts[3]])
    rule = head[44 + _body_bytes(counts, 8) :].strip(b"\n")
    return [s for s in times if s > 0], rule


def _body_bytes(counts: tuple[int, ...], time_bytes: int) -> int:
    utc_count, standard_count, leap_count, time_count, type_count, character_count = counts
    return (
        time_count * (time_bytes + 1)
        + type_count * 6
        + character_count
        + leap_count * (time_bytes + 4)
        + standard_count
        + utc_count
    )


def _year(at_s: int) -> int:
    return date.fromordinal(EPOCH_DAY + at_s // DAY_S).year


def _year_start_s(year: int) -> int:
    return (date(year, 1, 1).toordinal() - EPOCH_DAY) * DAY_S
