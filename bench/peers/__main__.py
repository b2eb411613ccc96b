"""The same no-op jobs on Quorate and on other queues: rates, CPU time, latency, ratios.

Appends the tables to bench/RESULTS.md. A peer that cannot run here is left out and named.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.__main__ import RESULTS, commit
from bench.machine import description
from bench.peers import disk, install
from bench.peers.catalogue import PEERS, Peer, named
from bench.peers.harness import Figures, Plan, measure
from bench.peers.report import report

SECONDS_HELP = "a slow peer gets as many jobs as it can do in that time"
FOLDER_HELP = "for data, logs and records; on tmpfs an fsync costs nothing"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--only", default="", help=f"of {', '.join(p.name for p in PEERS)}")
    parser.add_argument("--jobs", type=int, default=Plan.jobs, help="at most, for each measurement")
    parser.add_argument("--latency-s", type=float, default=Plan.latency_s, help="paced at 200/s")
    parser.add_argument("--seconds-max", type=float, default=Plan.seconds_max, help=SECONDS_HELP)
    parser.add_argument("--rounds", type=int, default=1, help="all peers in turn, this many times")
    parser.add_argument("--check", action="store_true", help="only say what this machine lacks")
    parser.add_argument("--install", action="store_true", help="only install the peers")
    parser.add_argument("--no-record", action="store_true", help="do not append to RESULTS.md")
    parser.add_argument("--folder", type=Path, default=tempfile.gettempdir(), help=FOLDER_HELP)
    parser.add_argument("--keep", action="store_true", help="keep data, logs and records there")
    arguments = parser.parse_args()
    try:
        peers = named(arguments.only)
    except ValueError as error:
        parser.error(str(error))
    if arguments.check:
        return _check(peers)
    peers = [peer for peer in peers if not _lacks(peer)]
    for peer in peers:
        install.install(peer)
    if arguments.install:
        return 0
    return _compare(
        peers, Plan(arguments.jobs, arguments.latency_s, arguments.seconds_max), arguments
    )


def _lacks(peer: Peer) -> list[str]:
    lacks = install.missing(peer)
    if lacks:
        print(f"{peer.name} is left out: needs {', '.join(lacks)}", file=sys.stderr)
    return lacks


def _check(peers: Sequence[Peer]) -> int:
    """One line for each peer. Exit code 1 when one cannot run."""
    complete = True
    for peer in peers:
        lacks = install.missing(peer)
        complete &= not lacks
        here = "installed" if install.is_installed(peer) else "is installed by the first run"
        print(f"{peer.name}: {'needs ' + ', '.join(lacks) if lacks else here}")
    return 0 if complete else 1


def _compare(peers: Sequence[Peer], plan: Plan, arguments: argparse.Namespace) -> int:
    states, rounds, failed = [_state(arguments.folder)], [], {}
    for _ in range(arguments.rounds):
        figures: dict[str, Figures] = {}
        for peer in peers:
            try:
                figures[peer.name] = _one(peer, plan, arguments.folder, arguments.keep)
            except (RuntimeError, TimeoutError, OSError) as error:
                failed[peer.name] = repr(error).splitlines()[0][:300]
                print(f"{peer.name} failed: {error}", file=sys.stderr, flush=True)
        rounds.append(figures)
        states.append(_state(arguments.folder))
    title = f"commit {commit()}, side by side (`python -m bench.peers`), rounds: {len(rounds)}"
    conditions = f"{description()} Before and after each round: {'; '.join(states)}."
    lines = ["", f"## {_now()} UTC, {title}", "", conditions, *report(peers, rounds, failed)]
    print("\n".join(lines))
    if not arguments.no_record:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
    wrong = [f for figures in rounds for f in figures.values() if f.faults != "none"]
    return 1 if failed or wrong else 0


def _one(peer: Peer, plan: Plan, place: Path, keep: bool) -> Figures:
    print(f"{peer.name} ...", file=sys.stderr, flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"peers-{peer.name}-", dir=place))
    folder.chmod(0o755)  # PostgreSQL runs as another user in a folder below
    try:
        figures = asyncio.run(_until_told(measure(peer, plan, folder)))
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(figures, file=sys.stderr, flush=True)
    return figures


async def _until_told(work: Coroutine[Any, Any, Figures]) -> Figures:
    """SIGTERM ends the run as Ctrl-C does, so that no server is left behind."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M")


def _state(folder: Path) -> str:
    """What else the machine does, as far as it shows in waiting for a core and for the disk."""
    load, sync_ms, kind = os.getloadavg()[0], disk.sync_ms(folder), disk.kind(folder)
    return f"load average {load:.1f}, fdatasync on {kind} {sync_ms:.2f} ms"


if __name__ == "__main__":
    sys.exit(main())
