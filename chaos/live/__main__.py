"""Scenarios of faults on real processes under load, judged by what everybody saw.

    python -m chaos.live --list
    python -m chaos.live --scenario crashes --minutes 5 --seed 7
    python -m chaos.live --scenario all --minutes 60 --log night.jsonl

The seed chooses faults and requests; when exactly things happen is up to the machine. After a
failure the folder with the data and all logs stays. `all` runs a minute of each scenario in turn
until the minutes are over; with the log of an earlier run it goes on where that one was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from chaos.live.mutants import MUTANTS
from chaos.live.night import SLICE_S, Night, is_clean, verdict_of
from chaos.live.runner import NotPossibleError, run
from chaos.live.scenario import load, names


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chaos.live", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--scenario", default="everything", help="a name, or all")
    parser.add_argument("--minutes", type=float, default=1.0, help="of faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="default: a new one, removed after a success")
    parser.add_argument("--log", type=Path, help="of all: what has ended (in the folder)")
    parser.add_argument("--slice", type=float, help=f"of all: seconds of each ({SLICE_S:g})")
    parser.add_argument(
        "--mutant", default="", choices=["", *MUTANTS], help="of one scenario: a build to be found"
    )
    parser.add_argument("--list", action="store_true", help="tell the scenarios and end")
    arguments = parser.parse_args()
    if complaint := _complaint(arguments):
        parser.error(complaint)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no process is left behind
    if arguments.list:
        for name in names():
            print(f"{name:12} {load(name).about}")
        return 0
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="quorate-chaos-"))
    if arguments.scenario == "all":
        clean = _all(arguments, folder)
    else:
        try:
            clean = _one(arguments, folder)
        except ValueError as error:
            parser.error(str(error))
    if not clean:
        print(f"FAILED; logs and data: {folder}")
        return 1
    if arguments.folder is None:
        shutil.rmtree(folder)
    return 0


def _complaint(arguments: argparse.Namespace) -> str:
    """What would do nothing, and could be taken for a clean run."""
    is_all = arguments.scenario == "all"
    slice_s = SLICE_S if arguments.slice is None else arguments.slice
    if arguments.minutes <= 0 or slice_s <= 0:
        return "--minutes and --slice must be more than 0"
    if is_all and arguments.mutant:
        return "--mutant is for one scenario, not for all"
    if not is_all and (arguments.log is not None or arguments.slice is not None):
        return "--log and --slice are for --scenario all"
    return ""


def _one(arguments: argparse.Namespace, folder: Path) -> bool:
    scenario = load(arguments.scenario)
    print(f"{scenario.name}: {scenario.about}", flush=True)
    seconds = arguments.minutes * 60
    try:
        verdict = asyncio.run(run(scenario, arguments.seed, seconds, folder, arguments.mutant))
    except NotPossibleError as error:
        print(f"  left out: {error}")
        return True
    print(verdict, flush=True)
    return not verdict.faults


def _all(arguments: argparse.Namespace, folder: Path) -> bool:
    log = arguments.log or folder / "night.jsonl"
    night = Night(names(), arguments.seed, folder, log, arguments.slice or SLICE_S)
    with contextlib.suppress(KeyboardInterrupt):  # the verdict on what there is
        night.run(arguments.minutes)
    told = night.told()
    print(verdict_of(told), flush=True)
    return is_clean(told)


if __name__ == "__main__":
    sys.exit(main())
