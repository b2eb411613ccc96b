"""How long faults keep a cluster from taking and starting jobs, for docs/reliability.md.

    python -m chaos.live.availability --fault leader-kill --repetitions 30 --rate 500
    python -m chaos.live.availability --repetitions 30 --page      # all faults; some 25 minutes

Figures go to a JSON file, those of a fault in place of its older ones; `--page` writes table and
plot of all that is in the file into the documentation.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from chaos.live.availability.figures import Measured, quantile
from chaos.live.availability.ills import ILLS
from chaos.live.availability.measure import measure
from chaos.live.availability.page import fill, plot
from chaos.live.processes import ROOT

FIGURES = ROOT / "docs" / "data" / "availability.json"
PAGE = ROOT / "docs" / "reliability.md"
PLOT = ROOT / "docs" / "img" / "availability.svg"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chaos.live.availability", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--fault", default="all", choices=["all", "none", *ILLS])
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--rate", type=float, default=500.0, help="jobs a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--figures", type=Path, default=FIGURES, help="the JSON file")
    parser.add_argument("--page", action="store_true", help="write table and plot")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no process is left behind
    chosen = {"all": list(ILLS), "none": []}.get(arguments.fault, [arguments.fault])
    figures, failed = read(arguments.figures), []
    for name in chosen:
        one = _measure(name, arguments)
        figures[name] = one
        write(arguments.figures, figures)
        if one.lost or one.doubled:
            failed.append(name)
    if arguments.page:
        told = [figures[name] for name in ILLS if name in figures]
        PAGE.write_text(fill(PAGE.read_text(), told))
        PLOT.write_text(plot(told))
    if failed:
        print(f"FAILED, jobs were lost or doubled: {', '.join(failed)}")
    return 1 if failed else 0


def _measure(name: str, arguments: argparse.Namespace) -> Measured:
    begun_s = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="quorate-availability-"))
    one = asyncio.run(
        measure(
            name, ILLS[name], arguments.repetitions, arguments.rate, folder, arguments.seed
        )
    )  # fmt: skip
    if not (one.lost or one.doubled):
        shutil.rmtree(folder)
    for what in ("submissions_ms", "starts_ms"):
        values = [getattr(outage, what) for outage in one.outages]
        told = ", ".join(f"p{share * 100:g} {quantile(values, share):.0f}" for share in (0.5, 0.99))
        print(f"{name:16} {what:15} {told}, most {max(values):.0f}")
    print(
        f"{name:16} {one.acknowledged} acknowledged, {one.lost} lost, {one.doubled} doubled, "
        f"{one.ran_again} ran again; {time.monotonic() - begun_s:.0f} s, load {one.load}",
        flush=True,
    )
    return one


def read(file: Path) -> dict[str, Measured]:
    if not file.exists():
        return {}
    return {
        each.fault: each for each in msgspec.json.decode(file.read_bytes(), type=list[Measured])
    }


def write(file: Path, figures: dict[str, Measured]) -> None:
    """One line a fault, so that differences can be read."""
    lines = [msgspec.json.encode(figures[name]).decode() for name in ILLS if name in figures]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    sys.exit(main())
