"""Runs the rows and appends what was measured to bench/RESULTS.md, with commit and machine."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import shutil
import subprocess
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from bench import machine, report
from bench.harness import FULL, QUICK, Result, Scale

ROWS = {
    "P1": "p1_submit",
    "P2": "p2_end_to_end",
    "P3": "p3_single",
    "P3S": "p3s_sdk",
    "P4": "p4_latency",
    "P5": "p5_due",
    "P6": "p6_failover",
    "P7": "p7_memory",
    "P8": "p8_many_pending",
    "P9": "p9_restart",
    "P10": "p10_idle",
    "P11": "p11_workers",
    "F1": "f1_kill",
    "F2": "f2_silence",
    "F3": "f3_calm",
    "F4": "f4_transfer",
    "F5": "f5_sigterm",
    "S1": "s1_schedules",
    "L": "l_loaded",
    "M": "m_ingest",
    "V": "v_variants",
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--scale", choices=("quick", "full"), default="quick")
    parser.add_argument("--no-record", action="store_true", help="do not append to RESULTS.md")
    parser.add_argument("--fill", action="store_true", help="put figures into docs/performance.md")
    arguments = parser.parse_args()
    wanted = arguments.rows.upper().split(",")
    unknown = [row for row in wanted if row not in ROWS]
    if unknown:
        parser.error(f"unknown rows: {', '.join(unknown)}")
    scale = FULL if arguments.scale == "full" else QUICK
    conditions, before = machine.description(), machine.weather()
    results = [result for row in wanted for result in _measure(row, scale)]
    conditions += "\n" + machine.between(before, machine.weather())
    print(f"\n{conditions}")
    if not arguments.no_record:
        _record(results, scale, conditions)
    _report(results, arguments.fill)
    return 0 if all(result.holds for result in results) else 1


def _measure(row: str, scale: Scale) -> list[Result]:
    folder = Path(tempfile.mkdtemp(prefix="quorate-bench-"))
    print(f"{row} ...", file=sys.stderr, flush=True)
    try:
        module = importlib.import_module(f"bench.rows.{ROWS[row]}")
        results: list[Result] = asyncio.run(module.measure(scale, folder))
    except Exception as error:  # the other rows are measured all the same
        traceback.print_exc()
        results = [Result(row, f"not measured: {error!r}", {}, "", holds=False)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for result in results:
        print(result.line(), flush=True)
    return results


def _record(results: list[Result], scale: Scale, conditions: str) -> None:
    with RESULTS.open("a", encoding="utf-8") as file:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
        file.write(f"\n## {now} UTC, commit {commit()}, scale {scale.name}\n\n{conditions}\n\n")
        file.write("| row | what | measured | target | outcome |\n|---|---|---|---|---|\n")
        file.writelines(result.line() + "\n" for result in results)


def _report(results: list[Result], is_filled: bool) -> None:
    """The table of targets as it stands in the page, with these figures."""
    page = report.filled(report.PAGE.read_text(encoding="utf-8"), results)
    print(f"\n{report.table(page)}")
    if is_filled:
        report.PAGE.write_text(page, encoding="utf-8")


def commit() -> str:
    try:
        command = ["git", "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
