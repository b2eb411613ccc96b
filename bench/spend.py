"""Where each microsecond of a job goes at P2: `python -m bench.spend`.

Each process is sampled by py-spy in a run of its own. How much CPU time it used says the kernel,
what for say the samples: each belongs to the innermost frame that stands in GROUPS.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.flame import ROLES, py_spy, recorded

# Wherever such a frame stands in the stack, all below it is spent for it.
COMMANDS = (
    ("apply: submit", r"^submit_jobs "),
    ("apply: assign", r"^assign_jobs "),
    ("apply: complete", r"^complete_jobs "),
)
# The first pattern that fits a frame, of frames from the innermost on, names what it is spent for.
GROUPS = (
    ("decode entries", r"cluster/machine/commands"),
    ("apply: the rest", r"cluster/(machine/|timerwheel|raft_state)"),
    ("ready queues", r"cluster/projections/ready"),
    ("metrics", r"cluster/projections/metrics"),
    ("history: rows", r"cluster/actors/archivist"),
    ("history: file", r"cluster/history/"),
    ("journal", r"cluster/consensus/(disk|segments|records|storage|journal|mark)\.py"),
    ("node to node", r"cluster/consensus/(wire|link|mesh|replicator|outbox|acceptor)\.py"),
    ("consensus", r"cluster/consensus/|pysyncobj"),
    ("dispatch", r"cluster/actors/(dispatcher|capacity|session|slices)\.py"),
    ("propose", r"cluster/actors/proposer"),
    ("book results", r"cluster/actors/desk"),
    ("worker socket", r"cluster/api/(worker_stream|outbox|frames)\.py"),
    ("other duties", r"cluster/actors/|cluster/clock/"),
    ("HTTP: decode and group", r"cluster/api/(batch|intake|codec|submission)\.py"),
    ("HTTP", r"cluster/api/|aiohttp/web"),
    ("run jobs", r"quorate/worker/(runner|running)|quorate/(executors|context)|bench/tasks"),
    ("say results", r"quorate/worker/outbox"),
    ("stream", r"quorate/worker/|aiohttp/(client_ws|http_websocket|_websocket)"),
    ("aiohttp", r"aiohttp/"),
    ("event loop and sockets", r"asyncio/|uvloop|cluster/main|threading|selectors|queue"),
)
_PATTERNS = [(name, re.compile(pattern)) for name, pattern in GROUPS]
_OUTER = [(name, re.compile(pattern)) for name, pattern in COMMANDS]
# For the disk, for work, for the interpreter lock: py-spy takes some of it for work.
WAITS = re.compile(r"sync(_data|_folder)? \(cluster|DiskThread\._take|^_worker |Condition\.wait ")
ELSEWHERE = "elsewhere"
LEAST_US = 0.05


def group_of(stack: list[str]) -> str:
    """`stack` from the outermost frame on, each as py-spy writes it: `function (file:line)`."""
    for name, pattern in _OUTER:
        if any(pattern.search(frame) for frame in stack):
            return name
    for frame in reversed(stack):
        for name, pattern in _PATTERNS:
            if pattern.search(frame):
                return name
    return ELSEWHERE


def shares_of(samples: str) -> dict[str, float]:
    """Of one process: what share of its time each group took. Lines are `frame;frame count`."""
    counts: Counter[str] = Counter()
    for line in samples.splitlines():
        text, _, count = line.rpartition(" ")
        stack = text.split(";")
        if not WAITS.search(stack[-1]):
            counts[group_of(stack)] += int(count)
    return {name: count / counts.total() for name, count in counts.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.spend", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10)
    seconds = parser.parse_args().seconds
    spy = py_spy()
    print("| process | us per job | what for |\n|---|---|---|")
    for role in ROLES:
        with tempfile.TemporaryDirectory(prefix="quorate-spend-") as folder:
            out = Path(folder) / "samples"
            cost_us = asyncio.run(recorded(spy, role, seconds, out, "raw", Path(folder)))
            shares = shares_of(out.read_text(encoding="utf-8"))
        parts = [
            f"{name} {share * cost_us:.1f}"
            for name, share in sorted(shares.items(), key=lambda item: -item[1])
            if share * cost_us >= LEAST_US
        ]
        print(f"| {role} | {cost_us:.1f} | {', '.join(parts)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
