"""What a thread has used and let go, others can have: measured in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from chaos.live.processes import ROOT

# Small enough for malloc's heap, too large for Python's own pools.
PROGRAM = """
import sys, threading
from pathlib import Path
from cluster.vitals.heap import share_one_heap

if sys.argv[1] == "shared":
    share_one_heap()
kept = []
thread = threading.Thread(target=lambda: kept.extend(bytes(2_000) for _ in range(20_000)))
thread.start()
thread.join()
name, heap_kb = "", 0
for line in Path("/proc/self/smaps").read_text().splitlines():
    if "-" in line.split()[0]:
        name = line.split()[-1]
    elif line.startswith("Rss:") and name == "[heap]":
        heap_kb += int(line.split()[1])
print(heap_kb // 1_024)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_threads_share_one_heap() -> None:
    heap_mb = {how: _heap_mb(how) for how in ("shared", "apart")}
    assert heap_mb["shared"] >= 38 > heap_mb["apart"]


def _heap_mb(how: str) -> int:
    words = [sys.executable, "-c", PROGRAM, how]
    return int(subprocess.run(words, cwd=ROOT, check=True, capture_output=True).stdout)
