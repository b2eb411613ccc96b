"""Flat, or growing: the rule by which a soak is judged.

Looked at is the last two thirds of the longest life of each node that lived for at least half of
the time; what comes before is warm-up, and a life that is shorter is little else. The
growth is the median of the slopes between all pairs of samples (Theil and Sen), which neither a
spike nor a moment of quiet moves. A column is flat if that growth is below `SHARE` of its median an
hour, or below its floor, an amount that does not matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from statistics import median

from msgspec import Struct

from chaos.live.soak.sample import Sample

SHARE = 0.10  # of the median, an hour
POINTS_MAX = 240  # of a series; more are thinned
SAMPLES_MIN = 12  # of a life that is judged
LIFE_SHARE = 0.5  # of the whole time
MIB = 1 << 20
# Column -> growth an hour that does not matter.
FLOORS: dict[str, float] = {
    "rss_bytes": 8 * MIB,
    "fds": 8,
    "threads": 2,
    "journal_bytes": 16 * MIB,  # one segment
    "snapshot_bytes": MIB,
    "proposals_queued": 500,
    "proposals_waiting": 500,
    "history_buffered": 2_000,
    "pending": 2_000,
    "running": 500,
}

PEAKS = ("rss_bytes", "fds", "threads", "journal_bytes", "history_buffered", "pending")


class Growth(Struct):
    """One column of one life. `level` is the median of what was looked at."""

    node: str
    column: str
    level: float
    per_hour: float
    minutes: float

    @property
    def is_flat(self) -> bool:
        return self.per_hour <= max(SHARE * self.level, FLOORS[self.column])

    def __str__(self) -> str:
        told = "flat" if self.is_flat else "GROWS"
        level, growth = (_amount(self.column, value) for value in (self.level, self.per_hour))
        return f"{self.node} {self.column:18} {told:5} at {level}, {growth} an hour"


def judge(samples: Sequence[Sample]) -> list[Growth]:
    """Of every node; nothing of one that never lived for long."""
    growths = []
    moments_s = [each.s for each in samples] or [0.0]
    whole_s = max(moments_s) - min(moments_s)
    for node, life in sorted(longest_lives(samples).items()):
        looked_at = life[len(life) // 3 :]
        if len(life) < SAMPLES_MIN or life[-1].s - life[0].s < LIFE_SHARE * whole_s:
            continue
        minutes = (looked_at[-1].s - looked_at[0].s) / 60
        for column in FLOORS:
            values = [(each.s, float(getattr(each, column))) for each in looked_at]
            level = median(value for _, value in values)
            growths.append(Growth(node, column, level, slope(values) * 3_600, minutes))
    return growths


def peaks(samples: Sequence[Sample]) -> str:
    """The most that any life of any node had, also one that is not judged."""
    most = {column: max(getattr(each, column) for each in samples) for column in PEAKS}
    lives = len({(each.node, each.pid) for each in samples})
    told = ", ".join(f"{column} {_amount(column, value)}" for column, value in most.items())
    return f"most in any of {lives} lives: {told}"


def longest_lives(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    lives: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for each in samples:
        lives[each.node, each.pid].append(each)
    longest: dict[str, list[Sample]] = {}
    for (node, _), life in lives.items():
        if len(life) > len(longest.get(node, [])):
            longest[node] = life
    return longest


def slope(values: Sequence[tuple[float, float]]) -> float:
    """A second; the median over all pairs."""
    thinned = values[:: -(-len(values) // POINTS_MAX)]
    return median((b - a) / (t - s) for (s, a), (t, b) in combinations(thinned, 2))


def _amount(column: str, value: float) -> str:
    return f"{value / MIB:.1f} MiB" if column.endswith("_bytes") else f"{value:.1f}"
