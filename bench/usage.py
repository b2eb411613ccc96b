"""What processes took from the machine: CPU time by process and thread, memory, bytes written.

Read from /proc before and after. CPU time comes from the kernel's scheduler, in nanoseconds; the
hundredths of a second in `stat` are too coarse for a short run. Only for children that have ended
(a snapshot is written by one) there is nothing finer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

NS_PER_S = 1_000_000_000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Of one process since it began. The first thread runs the event loop."""

    loop_cpu_s: float
    threads_cpu_s: float
    children_cpu_s: float  # that have ended
    written_bytes: int  # handed to the disk below the page cache; none on a tmpfs

    @property
    def cpu_s(self) -> float:
        return self.loop_cpu_s + self.threads_cpu_s + self.children_cpu_s

    def __sub__(self, before: Usage) -> Usage:
        return Usage(
            self.loop_cpu_s - before.loop_cpu_s,
            self.threads_cpu_s - before.threads_cpu_s,
            self.children_cpu_s - before.children_cpu_s,
            self.written_bytes - before.written_bytes,
        )

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.loop_cpu_s + other.loop_cpu_s,
            self.threads_cpu_s + other.threads_cpu_s,
            self.children_cpu_s + other.children_cpu_s,
            self.written_bytes + other.written_bytes,
        )


NOTHING = Usage(0.0, 0.0, 0.0, 0)


def usage_of(pid: int) -> Usage:
    """What a process has used until now; a thread that has ended is forgotten."""
    process = Path(f"/proc/{pid}")
    by_thread = {
        int(task.name): int((task / "schedstat").read_text().split()[0]) / NS_PER_S
        for task in (process / "task").iterdir()
    }
    loop_cpu_s = by_thread.pop(pid, 0.0)
    threads_cpu_s = sum(by_thread.values())
    return Usage(loop_cpu_s, threads_cpu_s, _children_cpu_s(process), _written_bytes(process))


def _children_cpu_s(process: Path) -> float:
    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / TICKS_PER_S  # cutime and cstime of proc(5)


def _written_bytes(process: Path) -> int:
    for line in (process / "io").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "write_bytes":
            return int(value)
    return 0


def rss_bytes(pid: int) -> int:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
