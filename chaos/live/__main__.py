"""Scenarios of faults on real processes under load, judged by what everybody saw.

    python -m chaos.live --list
    python -m chaos.live --scenario crashes --minutes 5 --seed 7
    python -m chaos.live --scenario all --minutes 60

The seed chooses faults and requests; when exactly things happen is up to the machine. After a
failure the folder with the data and all logs stays.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from chaos.live.runner import NotPossibleError, run
from chaos.live.scenario import load, names


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chaos.live", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--scenario", default="everything", help="a name, or all")
    parser.add_argument("--minutes", type=float, default=1.0, help="of faults, for each scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="default: a new one, removed after a success")
    parser.add_argument("--list", action="store_true", help="tell the scenarios and end")
    arguments = parser.parse_args()
    if arguments.list:
        for name in names():
            print(f"{name:12} {load(name).about}")
        return 0
    chosen = names() if arguments.scenario == "all" else [arguments.scenario]
    try:
        scenarios = [load(name) for name in chosen]
    except ValueError as error:
        parser.error(str(error))
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="quorate-chaos-"))
    failed = []
    for scenario in scenarios:
        print(f"{scenario.name}: {scenario.about}", flush=True)
        place = folder / scenario.name
        try:
            verdict = asyncio.run(run(scenario, arguments.seed, arguments.minutes * 60, place))
        except NotPossibleError as error:
            print(f"  left out: {error}")
            continue
        print(verdict, flush=True)
        if verdict.faults:
            failed.append(scenario.name)
        elif arguments.folder is None:
            shutil.rmtree(place)
    if failed:
        print(f"FAILED: {', '.join(failed)}; logs and data: {folder}")
        return 1
    if arguments.folder is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
