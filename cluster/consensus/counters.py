"""Plain numbers about one consensus node, cheap enough to bump on the hot path.

Exports nothing by itself: `status()` reads them and the metrics layer names them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SAMPLES = 1024


class Latencies:
    """The last 1,024 durations in seconds; percentiles are computed only when somebody asks."""

    def __init__(self) -> None:
        self._ring = [0.0] * SAMPLES
        self.count = 0

    def add(self, seconds: float) -> None:
        self._ring[self.count % SAMPLES] = seconds
        self.count += 1

    def percentile_ms(self, percent: float) -> float:
        """0.0 while there are no samples."""
        kept = sorted(self._ring[: min(self.count, SAMPLES)])
        if not kept:
            return 0.0
        return round(kept[min(len(kept) - 1, int(len(kept) * percent / 100))] * 1000, 3)


@dataclass
class Counters:
    """One instance per node, shared by its parts."""

    elections_started: int = 0
    prevotes_started: int = 0
    leaderships: int = 0
    step_downs: int = 0
    member_changes: int = 0
    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connections: int = 0
    entries_sent: int = 0
    rewinds: int = 0
    entries_applied: int = 0
    proposals: int = 0
    reads: int = 0
    reads_failed: int = 0
    read_rounds: int = 0
    fsyncs: int = 0
    journal_bytes_written: int = 0
    snapshots_taken: int = 0
    snapshots_failed: int = 0
    snapshots_sent: int = 0
    snapshots_installed: int = 0
    runs: int = 0
    stall_max_ms: float = 0.0
    tls_days_left: float | None = None  # until this node's certificate expires; None without TLS
    disk_full: bool = False
    dropped: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    fsync: Latencies = field(default_factory=Latencies)
    commit: Latencies = field(default_factory=Latencies)

    def view(self) -> dict[str, object]:
        plain = {
            name: value for name, value in vars(self).items() if isinstance(value, int | float)
        }
        return plain | {
            "dropped": dict(self.dropped),
            "errors": dict(self.errors),
            "fsync_p50_ms": self.fsync.percentile_ms(50),
            "fsync_p99_ms": self.fsync.percentile_ms(99),
            "commit_p50_ms": self.commit.percentile_ms(50),
            "commit_p99_ms": self.commit.percentile_ms(99),
        }
