"""How calm the disk of a run is: a queue that syncs for every job cannot be faster than that."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from bench.harness import quantile

BLOCK = b"x" * 4096
SYNCS = 100


def sync_ms(folder: Path) -> float:
    """Median of a few writes of 4 KiB with fdatasync, one after the other."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            os.write(file.fileno(), BLOCK)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1000)
    return quantile(times, 0.5)


def kind(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system that holds the folder, as Linux names it."""
    place, best, found = folder.resolve(), -1, "unknown"
    for line in mounts.read_text().splitlines():
        _, point, name, *_ = line.split()
        if place.is_relative_to(point) and len(point) > best:
            best, found = len(point), name
    return found
