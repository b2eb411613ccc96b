"""A cluster under a steady load, a fault every half minute, and what its nodes take of the machine.

    python -m chaos.live.soak --minutes 60 --rate 300
    python -m chaos.live.soak --minutes 60 --rate 25000 --batch 500 --counted
    python -m chaos.live.soak --judge soak.csv --plot soak.svg      # once more what was written

Fails if anything grows after the warm-up (verdict.py has the rule), or a job was lost or doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from chaos.live.availability.load import BATCH
from chaos.live.soak.plot import plot
from chaos.live.soak.run import soak
from chaos.live.soak.sample import Sample, read
from chaos.live.soak.verdict import judge, peaks


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chaos.live.soak", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=300.0, help="jobs a second")
    parser.add_argument("--batch", type=int, default=BATCH, help="jobs in a request")
    parser.add_argument(
        "--counted", action="store_true",
        help="jobs that do nothing, told from lost ones by their number: for thousands a second",
    )  # fmt: skip
    parser.add_argument("--fault-every", type=float, default=30.0, help="seconds")
    parser.add_argument("--sample-every", type=float, default=5.0, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", type=Path, default=Path("soak.csv"))
    parser.add_argument("--plot", type=Path, help="an SVG")
    parser.add_argument("--judge", type=Path, metavar="CSV", help="of a soak that is over")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no process is left behind
    faults: list[str] = []
    if arguments.judge is None:
        folder = Path(tempfile.mkdtemp(prefix="quorate-soak-"))
        print(f"load of the machine {os.getloadavg()[0]:.1f}; data and logs: {folder}", flush=True)
        faults = asyncio.run(soak(arguments, folder))
        if not faults:
            shutil.rmtree(folder)
    with (arguments.judge or arguments.csv).open() as file:
        samples = read(file)
    if arguments.plot is not None:
        arguments.plot.write_text(plot(samples))
    return _verdict(samples, faults)


def _verdict(samples: list[Sample], faults: list[str]) -> int:
    growths = judge(samples)
    print("\n".join(map(str, growths)))
    if samples:
        print(peaks(samples))
    faults += [str(each) for each in growths if not each.is_flat]
    if not growths:
        faults.append("no node lived for long enough to be judged")
    for fault in faults:
        print(f"FAULT: {fault}")
    print("FAILED" if faults else "FLAT")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
