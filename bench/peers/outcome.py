"""The ledger of a run: which jobs ran and when; whether each ran exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.adapters.kit import RECORD

Record = tuple[int, int]  # number of the job, nanoseconds since 1970


@dataclass(frozen=True)
class Faults:
    """What went wrong with the jobs of a run."""

    lost: list[int]
    doubled: list[int]
    unknown: list[int]  # ran and never were submitted

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.unknown)

    def __str__(self) -> str:
        named = {"lost": self.lost, "doubled": self.doubled, "unknown": self.unknown}
        return ", ".join(f"{len(jobs):,} {name}" for name, jobs in named.items() if jobs) or "none"


def check(numbers: Iterable[int], ran: Iterable[Record]) -> Faults:
    """Every number must have run exactly once, and nothing else."""
    counts, expected = Counter(number for number, _ in ran), set(numbers)
    return Faults(
        lost=sorted(expected - counts.keys()),
        doubled=sorted(number for number, count in counts.items() if count > 1),
        unknown=sorted(counts.keys() - expected),
    )


def latencies_ms(sent: Iterable[Record], ran: Iterable[Record]) -> list[float]:
    """From just before the call that submitted a job to the first line of its task."""
    started = dict(ran)
    return [(started[number] - at_ns) / 1e6 for number, at_ns in sent if number in started]


def read(paths: Iterable[Path]) -> list[Record]:
    return [record for path in paths for record in RECORD.iter_unpack(path.read_bytes())]


class Ledger:
    """The folder into which the tasks and the client of one run write their records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _ran_paths(self) -> Sequence[Path]:
        return sorted(self.folder.glob("ran-*.bin"))

    def ran_count(self) -> int:
        """How many tasks started so far, from the sizes of the files: asks no server anything."""
        return sum(path.stat().st_size for path in self._ran_paths()) // RECORD.size

    def ran(self) -> list[Record]:
        return read(self._ran_paths())

    def sent(self) -> list[Record]:
        path = self.folder / "sent.bin"
        return read([path] if path.exists() else [])
