"""`python -m bench.micro`: a table on standard output and, unless told otherwise, in RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench.__main__ import RESULTS, commit
from bench.machine import description
from bench.micro.timing import ROUNDS, Step

PARTS = ("edge", "codec", "machine", "timers", "derived", "disk", "wire", "leader", "worker")
JOBS = 10_000


def steps(parts: tuple[str, ...], jobs: int, folder: Path) -> list[tuple[str, Step]]:
    """All steps of some parts; `jobs` is how many operations a step does, more or less."""
    found = []
    for part in parts:
        module = importlib.import_module(f"bench.micro.{part}")
        found += [(part, step) for step in module.steps(jobs, folder)]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--no-record", action="store_true", help="do not append to RESULTS.md")
    arguments = parser.parse_args()
    lines = ["| part | step | us | per |", "|---|---|---|---|"]
    print("\n".join(lines))
    with tempfile.TemporaryDirectory(prefix="quorate-micro-") as folder:
        wanted = tuple(arguments.parts.split(","))
        for part, step in steps(wanted, arguments.jobs, Path(folder)):
            cost_us = step.microseconds(arguments.rounds)
            waits = " (time, not CPU)" if step.waits else ""
            lines.append(f"| {part} | {step.name} | {cost_us:.2f} | {step.per}{waits} |")
            print(lines[-1], flush=True)
    if not arguments.no_record:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
        head = f"\n## {now} UTC, commit {commit()}, single steps (`python -m bench.micro`)\n\n"
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(f"{head}{description()}\n\n" + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
