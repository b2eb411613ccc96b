"""`python -m chaos.sim --seeds 200`: which histories go wrong, in both worlds, and how to replay.

`python -m chaos.sim --world raft --seed 7` tells one history; `mutations` switches each guard of
consensus off in turn and says within how many seeds that is noticed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count, islice

from chaos.sim import mutations
from chaos.sim.raft.world import run_seed as run_raft
from chaos.sim.timetable import few, many
from chaos.sim.world import run_seed as run_jobs

WORLDS = ("raft", "jobs", "times", "rollout")
CHUNK_SEEDS = 8  # a process, before the next ones are dealt out
TIMES_FACTOR = 60  # the schedules of `times` are those of people: hours, where jobs have minutes


@dataclass(frozen=True)
class Told:
    """One history of either world, as much of it as is printed."""

    world: str
    seed: int
    failures: list[str]
    summary: str
    tail: list[str]
    launched: int = 0  # occurrences of schedules
    recorded: int = 0  # and those that did not run


def tell(world: str, seed: int, options: argparse.Namespace, echo: bool = False) -> Told:
    if world == "raft":
        raft = run_raft(seed, options.seconds, frozenset(options.disable), echo)
        summary = (
            f"trace {raft.digest}, {raft.entries} entries, {raft.leaders} leaders,"
            f" {raft.acknowledged} acknowledged, {raft.reads} reads"
        )
        return Told(world, seed, raft.failures, summary, raft.tail)
    minutes = options.minutes * (TIMES_FACTOR if world == "times" else 1)
    stage = many if world == "times" else few
    rolls = world == "rollout"
    jobs = run_jobs(seed, minutes, options.nodes, options.clients, echo, stage, rolls)
    summary = (
        f"trace {jobs.digest}, {jobs.entries} entries, {jobs.elections} elections,"
        f" {jobs.jobs} submissions, {jobs.launched} occurrences ran, {jobs.recorded} did not"
    )
    if rolls:
        summary += ", {} changes of release, {} refused".format(*jobs.releases)
    return Told(world, seed, jobs.failures, summary, jobs.tail, jobs.launched, jobs.recorded)


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos.sim", description=__doc__)
    parser.add_argument("command", nargs="?", choices=("run", "mutations"), default="run")
    parser.add_argument("--world", choices=(*WORLDS, "both"), default="both")
    parser.add_argument("--seed", type=int, help="tell this one history, event by event")
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds (200)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--tail", type=int, default=0, help="print the last N events of a failure")
    raft = parser.add_argument_group("raft: consensus as shipped, machine and disks included")
    raft.add_argument("--seconds", type=float, default=12.0, help="virtual time of faults (12)")
    raft.add_argument("--disable", action="append", default=[], help="switch a guard off")
    jobs = parser.add_argument_group(
        "jobs, times, rollout: scheduler, workers and users on an ideal log"
    )
    jobs.add_argument(
        "--occurrences", type=int, default=0, help="as many seeds as it takes to see so many"
    )
    jobs.add_argument("--minutes", type=float, default=2.0, help="virtual time of faults (2)")
    jobs.add_argument("--nodes", type=int, default=3, help="members of the cluster (3)")
    jobs.add_argument("--clients", type=int, default=3, help="concurrent users (3)")
    return parser.parse_args(arguments)


def main() -> int:
    options = options_of(sys.argv[1:])
    if options.command == "mutations":
        return mutations.report(options.disable, options.first, options.seeds, options.jobs)
    worlds = ("raft", "jobs") if options.world == "both" else (options.world,)
    if options.seed is not None:
        told = tell(worlds[0], options.seed, options, echo=True)
        print(f"seed {told.seed}: {told.summary}")
        print("\n".join(f"FAILED {failure}" for failure in told.failures) or "good")
        return 1 if told.failures else 0
    return max(run_world(world, options) for world in worlds)


def run_world(world: str, options: argparse.Namespace) -> int:
    started_s = time.perf_counter()
    failed = seeds = launched = recorded = 0
    for told in tell_all(world, options):
        seeds += 1
        launched += told.launched
        recorded += told.recorded
        if told.failures:
            failed += 1
            _describe(told, options)
        elif options.seeds == 1:
            print(f"{world} seed {told.seed}: good, {told.summary}")
        if 0 < options.occurrences <= launched + recorded:
            break
    seconds = time.perf_counter() - started_s
    seen = f", {launched:,} occurrences ran, {recorded:,} were written down" if launched else ""
    print(f"{world}: {seeds} seeds in {seconds:.0f} s{seen}, {failed} failed", flush=True)
    return 1 if failed else 0


def tell_all(world: str, options: argparse.Namespace) -> Iterator[Told]:
    """In order of seeds; without an end if it is occurrences that are wanted."""
    last = None if options.occurrences else options.first + options.seeds
    seeds = count(options.first) if last is None else iter(range(options.first, last))
    if options.jobs <= 1:
        for seed in seeds:
            yield tell(world, seed, options)
        return
    with ProcessPoolExecutor(options.jobs) as pool:
        work: Callable[..., Iterator[Told]] = pool.map
        while some := list(islice(seeds, CHUNK_SEEDS * options.jobs)):
            yield from work(tell, [world] * len(some), some, [options] * len(some))


def _describe(told: Told, options: argparse.Namespace) -> None:
    for line in told.tail[-options.tail :] if options.tail else ():
        print(f"    {line}")
    print(f"{told.world} seed {told.seed} FAILED: {'; '.join(told.failures[:3])}")
    if told.world == "raft":
        more = f"--seconds {options.seconds}"
        more += "".join(f" --disable {guard}" for guard in options.disable)
    else:
        more = f"--minutes {options.minutes} --nodes {options.nodes} --clients {options.clients}"
    print(
        f"  replay: python -m chaos.sim --world {told.world} --seed {told.seed} {more}", flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
