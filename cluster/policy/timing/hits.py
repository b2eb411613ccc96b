"""What a trigger names: instants with remarks, and instants that the zone or a rule takes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from heapq import merge
from typing import NamedTuple

from msgspec import Struct


class Note(Struct, frozen=True, gc=False):
    """Why an occurrence is not where one would look for it."""

    code: str  # "gap", "repeated", "holiday", "deferred", "jitter"
    text: str


class Hit(NamedTuple):
    """`reason` is empty for an instant that stands."""

    at_ms: int
    notes: tuple[Note, ...] = ()
    reason: str = ""
    text: str = ""


def merged(streams: Iterable[Iterator[Hit]]) -> Iterator[Hit]:
    """All hits in order; those at one instant become one, and what stands beats what does not."""
    last: Hit | None = None
    for hit in merge(*streams, key=_at):
        if last is None:
            last = hit
        elif last.at_ms != hit.at_ms:
            yield last
            last = hit
        else:
            last = _joined(last, hit)
    if last is not None:
        yield last


def clock_text(local_s: int) -> str:
    moment = datetime.fromtimestamp(local_s, UTC)
    return moment.strftime("%H:%M:%S" if moment.second else "%H:%M")


def day_text(local_s: int) -> str:
    return datetime.fromtimestamp(local_s, UTC).strftime("%Y-%m-%d")


def _at(hit: Hit) -> int:
    return hit.at_ms


def _joined(one: Hit, other: Hit) -> Hit:
    if one.reason or other.reason:
        return other if one.reason else one
    notes = (*one.notes, *(note for note in other.notes if note not in one.notes))
    return one._replace(notes=notes)
