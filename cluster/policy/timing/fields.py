"""The text of a cron expression, field by field: croniter expands, this file says what is allowed.

Two habits of croniter are not passed on: an equal range (`3-3`) would be the whole cycle, and `R`
would be drawn anew at each reading. `H` is a hash of the schedule's id, so it is always the same.
"""

from __future__ import annotations

import re
from functools import lru_cache

from croniter import croniter

from cluster.policy.timing.errors import TimingError

EXPRESSION_CHARACTERS_MAX = 256
CACHE_FIELDS_MAX = 8192  # expressions differ, their fields are mostly the same

NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
FIELDS = (
    "second (0-59)",
    "minute (0-59)",
    "hour (0-23)",
    "day of month (1-31)",
    "month (1-12 or jan-dec)",
    "day of week (0-7 or sun-sat)",
)
FIELDS_TEXT = "minute hour day-of-month month day-of-week"
SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY = range(6)
LIMITS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
HASHED_DAY = "h(1-28)"  # a hash must not fall on a day that some months do not have

_CRONITER_PLACE = (5, 0, 1, 2, 3, 4)  # croniter wants the seconds last
_DRAWN = re.compile(r"(^|,)r($|[,(/])")
_HASHED = re.compile(r"(^|,)h($|[,(/])")
_EQUAL_RANGE = re.compile(r"^(\w+)-\1(/[1-9]\d*)?$")


def split(expression: str) -> tuple[str, ...]:
    """Six lower-case fields, the seconds first. Raises TimingError."""
    if len(expression) > EXPRESSION_CHARACTERS_MAX:
        raise TimingError(
            f"the cron expression has {len(expression)} characters: at most "
            f"{EXPRESSION_CHARACTERS_MAX} are allowed"
        )
    text = expression.strip().lower()
    if text.startswith("@"):
        if text not in NAMES:
            raise TimingError(
                f"{expression.strip()!r} is not a known name: use {', '.join(NAMES)} or five fields"
            )
        text = NAMES[text]
    if not text.isascii():
        raise TimingError(
            f"cron {text!r} has characters beyond ASCII: use digits, names and * , - /"
        )
    fields = tuple(text.split())
    if len(fields) not in (5, 6):
        raise TimingError(
            f"cron {text!r} has {len(fields)} fields: write five, {FIELDS_TEXT}, "
            "or six with the second in front"
        )
    fields = fields if len(fields) == 6 else ("0", *fields)
    for field, name in zip(fields, FIELDS, strict=True):
        if _DRAWN.search(field):
            raise TimingError(
                f"cron {text!r}: {field!r} would be drawn at random for the {name}: write the "
                "value, or H, which is drawn once from the schedule's id"
            )
    return tuple(
        "*" if field == "?" and place in (DAY, WEEKDAY) else field
        for place, field in enumerate(fields)
    )


def tidy(expression: str) -> str:
    """The expression as it is stored: blanks tidied up, names and letters as they were written."""
    return " ".join(expression.split())


def is_hashed(field: str) -> bool:
    return _HASHED.search(field) is not None


@lru_cache(maxsize=CACHE_FIELDS_MAX)
def values(place: int, field: str, hash_id: str) -> tuple[int, ...]:
    """What a field or one term of it stands for, sorted. Raises TimingError."""
    terms = [_plain(place, term) for term in field.split(",")]
    alone = ["*"] * 6
    alone[_CRONITER_PLACE[place]] = ",".join(terms)
    # With the place in it, because croniter takes overlapping bits of one hash for all fields.
    drawn_from = f"{place}/{hash_id}".encode()
    try:
        if "?" in field:
            raise impossible(place, field)
        expanded, nth = croniter.expand(" ".join(alone), hash_id=drawn_from)
    except (ValueError, TypeError, KeyError, IndexError):
        raise impossible(place, field) from None
    found = expanded[_CRONITER_PLACE[place]]
    low, high = LIMITS[place]
    if found == ["*"]:
        return tuple(range(low, high + 1))
    numbers = sorted({int(v) for v in found if isinstance(v, int)})
    if nth or len(numbers) != len(set(found)) or not numbers:
        raise impossible(place, field)
    return tuple(numbers)


def impossible(place: int, field: str) -> TimingError:
    return TimingError(f"cron: {field!r} is not possible for the {FIELDS[place]}")


def _plain(place: int, term: str) -> str:
    if equal := _EQUAL_RANGE.match(term):
        return equal[1]
    return HASHED_DAY if term == "h" and place == DAY else term
