"""Durations and instants as people write them, turned into what the wire wants.

Accepts seconds, timedelta or "1h30m"; refuses negative values and naive datetimes, because a
silently assumed time zone is a job that runs at the wrong hour.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

Duration = int | float | str | timedelta

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:ms|[smhdw])\s*)+")


def to_seconds(value: Duration) -> float:
    """Seconds as a float. ValueError for anything negative, infinite or unreadable."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        seconds = _parse(value)
    elif isinstance(value, bool):
        raise ValueError("a duration must be seconds, a timedelta or a string like '5m'")
    else:
        seconds = float(value)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"a duration must be finite and not negative, not {value!r}")
    return seconds


def _parse(text: str) -> float:
    stripped = text.strip().lower()
    try:
        return float(stripped)
    except ValueError:
        pass
    if not _WHOLE.fullmatch(stripped):
        raise ValueError(f"cannot read {text!r} as a duration; write seconds, '90s', '5m', '1h30m'")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _PART.findall(stripped))


def to_rfc3339(value: datetime | str) -> str:
    """An instant in RFC 3339 UTC with milliseconds. ValueError for a datetime without a zone."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"cannot read {value!r} as an RFC 3339 time") from None
    if value.tzinfo is None:
        raise ValueError("a time needs a zone, e.g. datetime.now(UTC) or '2030-01-01T09:00:00Z'")
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
