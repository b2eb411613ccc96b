"""`python -m chaos.sim --seeds 200 --minutes 2`: which seeds fail, and how to replay."""

from __future__ import annotations

import argparse
import sys
import time

from chaos.sim.world import Report, run_seed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds (200)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--minutes", type=float, default=2.0, help="virtual time of faults (2)")
    parser.add_argument("--nodes", type=int, default=3, help="members of the cluster (3)")
    parser.add_argument("--clients", type=int, default=3, help="concurrent users (3)")
    parser.add_argument("--trace", action="store_true", help="print every event")
    parser.add_argument("--tail", type=int, default=0, help="print the last N events of a failure")
    options = parser.parse_args()
    failed = []
    started_s = time.perf_counter()
    for seed in range(options.first, options.first + options.seeds):
        report = run_seed(seed, options.minutes, options.nodes, options.clients, options.trace)
        if report.failures:
            failed.append(seed)
            _describe(report, options)
        elif options.seeds == 1:
            print(f"seed {seed}: good, trace {report.digest}, {report.entries} entries,"
                  f" {report.elections} elections, {report.jobs} submissions")  # fmt: skip
    seconds = time.perf_counter() - started_s
    print(f"{options.seeds} seeds in {seconds:.0f} s, {len(failed)} failed")
    return 1 if failed else 0


def _describe(report: Report, options: argparse.Namespace) -> None:
    for line in report.tail[-options.tail :] if options.tail else ():
        print(f"    {line}")
    print(f"seed {report.seed} FAILED: {'; '.join(report.failures[:3])}")
    print(
        f"  replay: python -m chaos.sim --first {report.seed} --seeds 1"
        f" --minutes {options.minutes} --nodes {options.nodes} --clients {options.clients} --trace",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
