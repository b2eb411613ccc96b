"""Random expressions, zones and instants, near changes of the clock more often than not."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from cluster.policy.timing.zones import Stretch, zone

FIRST_S, LAST_S = 31_536_000, 2_871_763_200  # 1971 to 2060
YEAR_S = 31_536_000
ZONES = (
    *("UTC", "America/New_York", "America/Chicago", "America/St_Johns", "America/Sao_Paulo"),
    *("America/Santiago", "America/Havana", "America/Caracas", "America/Scoresbysund"),
    *("Europe/Berlin", "Europe/London", "Europe/Dublin", "Europe/Moscow", "Atlantic/Azores"),
    *("Africa/Cairo", "Africa/Casablanca", "Asia/Tehran", "Asia/Gaza", "Asia/Kolkata"),
    *("Asia/Pyongyang", "Asia/Tokyo", "Asia/Amman", "Australia/Sydney", "Australia/Lord_Howe"),
    *("Australia/Adelaide", "Antarctica/Troll", "Pacific/Apia", "Pacific/Auckland"),
    *("Pacific/Chatham", "Pacific/Kiritimati"),
)
DAYS = ("L", "LW", "L,15", "1,LW")
WEEKDAYS = ("5L", "1#2", "SUN#5", "1L,3L", "TUE#1,FRI#3", "mon-fri", "sat,sun")


def field(rng: Random, low: int, high: int) -> str:
    kind = rng.random()
    if kind < 0.3:
        return "*"
    if kind < 0.45:
        return f"*/{rng.randint(2, max(2, (high - low) // 2))}"
    if kind < 0.7:
        return str(rng.randint(low, high))
    if kind < 0.85:
        first = rng.randint(low, high - 1)
        step = f"/{rng.randint(1, 5)}" if rng.random() < 0.3 else ""
        return f"{first}-{rng.randint(first + 1, high)}{step}"
    return ",".join(str(rng.randint(low, high)) for _ in range(rng.randint(2, 4)))


def expression(rng: Random) -> str:
    day = field(rng, 1, 31) if rng.random() < 0.4 else "*"
    day = rng.choice(DAYS) if rng.random() < 0.1 else day
    weekday = field(rng, 0, 7) if rng.random() < 0.3 else "*"
    weekday = rng.choice(WEEKDAYS) if rng.random() < 0.1 else weekday
    month = field(rng, 1, 12) if rng.random() < 0.2 else "*"
    text = f"{field(rng, 0, 59)} {field(rng, 0, 23)} {day} {month} {weekday}"
    return f"{field(rng, 0, 59)} {text}" if rng.random() < 0.2 else text


def instant_s(rng: Random, name: str) -> int:
    """Any time between 1971 and 2060; mostly within the day before the zone's next change."""
    at_s = rng.randrange(FIRST_S, LAST_S)
    change = next(changes(name, at_s, at_s + YEAR_S), None)
    if change is None or rng.random() < 0.4:
        return at_s
    return change.start_s - rng.randint(0, 86_400)


def changes(name: str, after_s: int, last_s: int) -> Iterator[Stretch]:
    """The stretches that begin with a change within (after, last]."""
    for stretch in zone(name).stretches(after_s):
        if stretch.start_s > last_s:
            return
        if stretch.start_s > after_s and stretch.before_s != stretch.offset_s:
            yield stretch
