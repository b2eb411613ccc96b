"""When a schedule fires: five-field cron in UTC, and plain intervals.

The leader computes, the log carries the instant: releases of croniter disagree about expressions,
so nothing replicated may ever evaluate one. Refuses what is not the same each time it is read (`R`
draws at random, `H` depends on a name) and what would never fire. Knows no time zone but UTC.
"""

import re
from functools import lru_cache

from croniter import croniter

EXPRESSION_CHARACTERS_MAX = 256
CACHE_EXPRESSIONS_MAX = 4096  # a parse costs as much as ten answers; a parsed one takes 2 KiB

NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
FIELDS = (
    "minute (0-59)",
    "hour (0-23)",
    "day of month (1-31)",
    "month (1-12 or jan-dec)",
    "day of week (0-7 or sun-sat)",
)
FIELDS_TEXT = "minute hour day-of-month month day-of-week"

_DRAWN = re.compile(r"(^|,)[hr]", re.IGNORECASE)  # no name of a month or day starts with these


class CronError(ValueError):
    """One sentence that says what is wrong with an expression and what to write instead."""


def validate(expression: str) -> str:
    """The expression with its blanks tidied up, to be stored. Raises CronError."""
    fields = _fields(expression)
    text = " ".join(fields)
    _parsed(text)
    return expression.strip().lower() if expression.strip().startswith("@") else text


def next_fire_ms(expression: str, after_ms: int) -> int:
    """The first fire strictly after `after_ms` (epoch ms, UTC). Raises CronError."""
    parsed = _parsed(" ".join(_fields(expression)))
    return _next_ms(parsed, expression, after_ms)


def catch_up(expression: str, nominal_ms: int, now_ms: int, window_ms: int) -> int:
    """The fire after `nominal_ms`, but none older than `now_ms - window_ms`.

    So after an outage the runs of the last `window_ms` are made up for and older ones are not.
    Raises CronError.
    """
    return next_fire_ms(expression, max(nominal_ms, now_ms - window_ms - 1))


def next_every_ms(anchor_ms: int, every_ms: int, after_ms: int) -> int:
    """The first of anchor, anchor + every, anchor + 2 every ... strictly after `after_ms`.

    Raises CronError unless `every_ms` is positive.
    """
    if every_ms < 1:
        raise CronError(f"an interval of {every_ms} ms never passes: use at least 1 ms")
    if after_ms < anchor_ms:
        return anchor_ms
    return anchor_ms + ((after_ms - anchor_ms) // every_ms + 1) * every_ms


@lru_cache(maxsize=CACHE_EXPRESSIONS_MAX)
def _fields(expression: str) -> tuple[str, ...]:
    """The five fields, for everything that has the shape of an expression."""
    if len(expression) > EXPRESSION_CHARACTERS_MAX:
        raise CronError(
            f"the cron expression has {len(expression)} characters: at most "
            f"{EXPRESSION_CHARACTERS_MAX} are allowed"
        )
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in NAMES:
            raise CronError(f"{text!r} is not a known name: use {', '.join(NAMES)} or five fields")
        text = NAMES[text.lower()]
    if not text.isascii():
        raise CronError(f"cron {text!r} has characters beyond ASCII: use digits, names and * , - /")
    fields = tuple(text.split())
    if len(fields) != len(FIELDS):
        hint = "; for less than a minute use every_seconds" if len(fields) > len(FIELDS) else ""
        raise CronError(f"cron {text!r} has {len(fields)} fields: write five, {FIELDS_TEXT}{hint}")
    for field, name in zip(fields, FIELDS, strict=True):
        if _DRAWN.search(field):
            raise CronError(
                f"cron {text!r}: {field!r} would be drawn at random for the {name}: write the value"
            )
    return fields


@lru_cache(maxsize=CACHE_EXPRESSIONS_MAX)
def _parsed(text: str) -> croniter:
    """A checked iterator; whoever uses it says where it starts, so that sharing it is safe."""
    fields = text.split()
    for position, (field, name) in enumerate(zip(fields, FIELDS, strict=True)):
        alone = ["*"] * len(FIELDS)
        alone[position] = field
        if not croniter.is_valid(" ".join(alone)):
            raise CronError(f"cron {text!r}: {field!r} is not possible for the {name}")
    never = CronError(
        f"cron {text!r} never fires: day {fields[2]} does not exist in month {fields[3]}, "
        "write a day that does"
    )
    if not croniter.is_valid(text, strict=True):
        raise never
    parsed = croniter(text, 0.0, ret_type=float)
    try:
        _next_ms(parsed, text, 0)
    except CronError:
        raise never from None
    return parsed


def _next_ms(parsed: croniter, expression: str, after_ms: int) -> int:
    # Whole seconds suffice: fires are whole minutes, so "after x.9 s" and "after x s" are the same.
    try:
        seconds: float = parsed.get_next(float, start_time=float(after_ms // 1000))
    except (ValueError, OverflowError, OSError):
        raise CronError(f"cron {expression!r} has no fire after {after_ms} ms") from None
    return int(seconds) * 1000
