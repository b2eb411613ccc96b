"""The schedules of a simulated history: every overlap and catch-up policy, odd zones and odd times.

A history begins shortly before something happens to the clocks of some zone, on an ordinary day, or
at the end of a month; which schedules it has is drawn from the pool below.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

from chaos.sim.clock import EPOCH_MS
from cluster.machine.model import OVERLAPS
from cluster.plan import Plan, Span, Trigger, Window

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
LEAD_MS = 45_000  # a history begins so long before its zone's transition
CALENDAR = "feast"


def _utc_ms(*fields: int) -> int:
    return round(datetime(*fields, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type,misc]


# Zone and instant of a transition: forward, back, half an hour, at midnight, a day that never was.
MOMENTS = (
    ("Europe/Berlin", EPOCH_MS),
    ("Europe/Berlin", _utc_ms(2027, 3, 28, 1)),
    ("Europe/Berlin", _utc_ms(2027, 10, 31, 1)),
    ("America/New_York", _utc_ms(2027, 3, 14, 7)),
    ("America/New_York", _utc_ms(2027, 11, 7, 6)),
    ("Europe/Dublin", _utc_ms(2027, 10, 31, 1)),
    ("Australia/Lord_Howe", _utc_ms(2027, 4, 3, 15)),
    ("Australia/Lord_Howe", _utc_ms(2027, 10, 2, 15, 30)),
    ("Africa/Cairo", _utc_ms(2025, 4, 24, 22)),
    ("America/Sao_Paulo", _utc_ms(2018, 11, 4, 3)),
    ("Pacific/Apia", _utc_ms(2011, 12, 30, 10)),
)


@dataclass(frozen=True)
class Entry:
    """One schedule, as a user writes it."""

    id: str
    plan: Plan
    overlap: str = "allow_all"
    max_executions: int = 0


def every(seconds: int, moment_ms: int, **fields: Any) -> Plan:
    """An interval with a long past, for backfills."""
    anchor_ms = (moment_ms - DAY_MS) // 1000 * 1000
    return Plan((Trigger(every_ms=seconds * 1000, anchor_ms=anchor_ms),), **fields)


def cron(text: str, **fields: Any) -> Plan:
    return Plan((Trigger(cron=text),), **fields)


def pool(rng: Random, zone: str, moment_ms: int) -> list[Entry]:
    """All that a history may have; times of day are those around the moment."""
    gap, repeat = rng.choice(("run", "skip", "shift")), rng.choice(("first", "second", "both"))
    dark = tuple(
        Span(at_ms, at_ms + 9_000) for at_ms in range(moment_ms, moment_ms + 3 * MINUTE_MS, 30_000)
    )
    times = sorted(rng.sample(range(moment_ms, moment_ms + 2 * MINUTE_MS, 500), 12))
    seconds = moment_ms // 1000 % 86_400
    return [
        Entry("flood", every(7, moment_ms, catchup="all")),
        Entry("skip-skip", every(4, moment_ms, catchup="skip"), "skip"),
        Entry("skip-one", every(5, moment_ms), "skip"),
        Entry("skip-all", every(5, moment_ms, catchup="all", catchup_max=5), "skip"),
        Entry("buffer-one", cron("*/6 * * * * *", timezone=zone), "buffer_one"),
        Entry("buffer-all", every(5, moment_ms, catchup="all", catchup_max=20), "buffer_all"),
        Entry("cancel-other", every(6, moment_ms), "cancel_other"),
        Entry("end-other", every(6, moment_ms, catchup="all", catchup_max=3), "terminate_other"),
        Entry("limited", every(3, moment_ms, catchup="all"), "allow_all", 8),
        Entry("jitter", every(5, moment_ms, jitter_ms=4_000, catchup="all"), "skip"),
        Entry(
            "fixed",
            cron(
                "5,25 0,1,2,29,30,31,57,58,59 0-4 * * *",
                timezone=zone,
                gap=gap,
                repeat=repeat,
                dst_explicit=rng.random() < 0.5,
                catchup="all",
            ),
        ),
        Entry("real-time", cron("*/9 * * * * *", timezone=zone, catchup="all")),
        Entry(
            "dark",
            Plan(
                every(4, moment_ms).triggers,
                unless=cron("*/20 * * * * *").triggers,
                blackouts=dark,
                catchup="all",
            ),
        ),
        Entry(
            "feast",
            cron("*/5 * * * * *", timezone=zone, calendars=(CALENDAR,), on_holiday="skip"),
            "skip",
        ),
        Entry("times", Plan((Trigger(at_ms=tuple(times)),), catchup="all")),
        Entry(
            "window",
            every(
                5,
                moment_ms,
                outside=rng.choice(("skip", "defer")),
                windows=(Window(seconds, (seconds + 40) % 86_400),),
                timezone="UTC",
            ),
        ),
    ]


def crowd(rng: Random, zone: str, moment_ms: int, count: int) -> list[Entry]:
    """Many schedules as people have them: minutes, hours, a few seconds; most say no more."""
    return [_one_of_many(rng, f"s{number:05}", zone, moment_ms) for number in range(count)]


def _one_of_many(rng: Random, name: str, zone: str, moment_ms: int) -> Entry:
    fields: dict[str, Any] = {
        "catchup": rng.choice(("skip", "one", "all")),
        "catchup_max": rng.choice((3, 20)),
        "catchup_window_ms": rng.choice((HOUR_MS, 7 * DAY_MS)),
        "jitter_ms": rng.choice((0, 0, 0, 30_000)),
    }
    if rng.random() < 0.1:
        at_ms = moment_ms + rng.randrange(10) * 10 * MINUTE_MS
        fields["blackouts"] = (Span(at_ms, at_ms + 15 * MINUTE_MS),)
    minute, offset = rng.randrange(60), rng.randrange(5)
    kind = rng.random()
    if kind < 0.4:
        plan = every(rng.choice((60, 90, 300, 900)), moment_ms, **fields)
    elif kind < 0.6:
        plan = cron(f"{offset}-59/5 * * * *", timezone=zone, **fields)
    elif kind < 0.8:
        plan = cron("* * * * *", timezone=zone, **fields)
    elif kind < 0.9:
        plan = cron(f"{minute} * * * *", timezone=zone, **fields)
    else:
        repeat = rng.choice(("first", "second", "both"))
        plan = cron(f"{minute} 0-4 * * *", timezone=zone, repeat=repeat, **fields)
    return Entry(name, plan, rng.choice(OVERLAPS), rng.choice((0, 0, 0, 50)))


@dataclass(frozen=True)
class Scene:
    """What a history is about. `manned`: jobs are executed by workers, and users are about; else
    they end by themselves, which is cheap."""

    moment_ms: int
    entries: list[Entry]
    outages_ms: tuple[int, ...] = (0, 50_000, 90_000, 10 * MINUTE_MS, 20 * MINUTE_MS)
    pace_s: tuple[float, float] = (0.1, 3.0)  # from fault to fault
    manned: bool = True


def few(rng: Random) -> Scene:
    """About half of the pool, so that histories differ in load, too."""
    zone, moment_ms = rng.choice(MOMENTS)
    entries = pool(rng, zone, moment_ms)
    kept = sorted(rng.sample(range(len(entries)), len(entries) // 2))
    return Scene(moment_ms, [entries[place] for place in kept])


def many(rng: Random, count: int = 1_000) -> Scene:
    """Hours around a moment, with days in which nothing runs."""
    zone, moment_ms = rng.choice(MOMENTS)
    outages_ms = (0, 90_000, 20 * MINUTE_MS, 3 * HOUR_MS, 30 * HOUR_MS)
    entries = crowd(rng, zone, moment_ms, count)
    return Scene(moment_ms, entries, outages_ms, (5.0, 120.0), manned=False)
