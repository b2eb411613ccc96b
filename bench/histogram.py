"""Latencies in an HdrHistogram: three digits at any size, nothing sampled, nothing averaged."""

from __future__ import annotations

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

LOWEST_US, HIGHEST_US, DIGITS = 1, 600_000_000, 3
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


class Latencies:
    """Durations, kept in microseconds."""

    def __init__(self, values_ms: Iterable[float] = ()) -> None:
        self._histogram = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
        for value_ms in values_ms:
            self.add_ms(value_ms)

    def add_ms(self, value_ms: float) -> None:
        # What two clocks of one machine make negative, and what is beyond all bounds, still counts.
        value_us = min(max(round(value_ms * 1000), LOWEST_US), HIGHEST_US)
        self._histogram.record_value(value_us)

    def __len__(self) -> int:
        count: int = self._histogram.get_total_count()
        return count

    def at_ms(self, percentile: float) -> float:
        """The value at or below which `percentile` percent lie; 0.0 while there are none."""
        value_us: int = self._histogram.get_value_at_percentile(percentile)
        return value_us / 1000

    def summary(self, *names: str) -> dict[str, str]:
        """Percentiles by name, all of PERCENTILES when none is named, and how many there were."""
        shown = {name: f"{self.at_ms(PERCENTILES[name]):.2f} ms" for name in names or PERCENTILES}
        return {**shown, "n": str(len(self))}
