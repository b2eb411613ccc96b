"""What the machine was like during a run: nothing can be compared without it.

Virtual machines change their speed by the minute, and their disks more so. So a run states what a
fixed piece of Python took, what an fsync took, and what share of its time the host took away.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

LOOP_TURNS = 500_000
SYNCS = 300
SYNC_BYTES = 400  # an entry with one job


@dataclass(frozen=True)
class Weather:
    """The state of the machine at one moment."""

    loop_ms: float
    sync_p50_ms: float
    sync_p99_ms: float
    jiffies: dict[str, int]  # of /proc/stat; empty where there is none

    def __str__(self) -> str:
        syncs = f"p50 {self.sync_p50_ms:.2f} ms, p99 {self.sync_p99_ms:.2f} ms"
        turns = f"{LOOP_TURNS:,} turns of a loop {self.loop_ms:.0f} ms"
        return f"{turns}, fdatasync of {SYNC_BYTES} bytes {syncs}"


def weather(folder: Path | None = None) -> Weather:
    """Takes about a second. `folder` is on the disk that is asked."""
    syncs = sorted(_syncs_ms(folder))
    return Weather(
        min(_loop_ms() for _ in range(3)),
        syncs[len(syncs) // 2],
        syncs[len(syncs) * 99 // 100],
        _jiffies(),
    )


def between(before: Weather, after: Weather) -> str:
    """What a reader of the figures of a run has to know of the machine."""
    text = f"Before: {before}; after: {after}."
    passed = {name: after.jiffies[name] - count for name, count in before.jiffies.items()}
    if sum(passed.values()):
        stolen = passed.get("steal", 0) / sum(passed.values())
        text += f" The host took {stolen:.1%} of the CPU time."
    return text


def description() -> str:
    """Cores, model, interpreter, and how busy it is."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = models[0].split(":")[1].strip() if models else model
    return (
        f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}; nodes, workers and "
        "load generator share them. Load averages before the run: "
        f"{', '.join(f'{load:.1f}' for load in os.getloadavg())}."
    )


def _loop_ms() -> float:
    started, total = time.perf_counter(), 0
    for number in range(LOOP_TURNS):
        total += number * number
    return (time.perf_counter() - started) * 1000


def _syncs_ms(folder: Path | None) -> list[float]:
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SYNCS):
            file.write(b"x" * SYNC_BYTES)
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - started) * 1000)
    return taken


def _jiffies() -> dict[str, int]:
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    try:
        counts = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return {}
    return dict(zip(names, map(int, counts), strict=False))
