"""Does the simulation notice? Each guard of consensus is switched off in turn, and seeds are run
until one fails. A guard that nobody misses is either covered by another one or not tested at all.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from chaos.sim.raft.world import run_seed
from cluster.consensus.guards import GUARDS

SECONDS = 12.0
CHUNK = 4


@dataclass(frozen=True)
class Caught:
    """`seeds` were needed; 0 if all were in vain."""

    guard: str
    seeds: int
    failure: str


def _fails(guard: str, seed: int) -> str:
    failures = run_seed(seed, SECONDS, frozenset({guard})).failures
    return failures[0] if failures else ""


def hunt(guard: str, first: int, seeds: int, processes: int = 1) -> Caught:
    """Runs seeds in order until one fails with the guard switched off."""
    if processes <= 1:
        for seed in range(first, first + seeds):
            if failure := _fails(guard, seed):
                return Caught(guard, seed - first + 1, failure)
        return Caught(guard, 0, "")
    with ProcessPoolExecutor(processes) as pool:
        step = processes * CHUNK
        for begin in range(first, first + seeds, step):
            some = range(begin, min(begin + step, first + seeds))
            for seed, failure in zip(
                some, pool.map(_fails, [guard] * len(some), some), strict=True
            ):
                if failure:
                    return Caught(guard, seed - first + 1, failure)
    return Caught(guard, 0, "")


def report(guards: list[str], first: int, seeds: int, processes: int) -> int:
    """Prints a table; fails if a guard was not missed."""
    missed = 0
    print("| guard | caught by seed | first complaint |\n|---|---|---|")
    for guard in guards or sorted(GUARDS):
        caught = hunt(guard, first, seeds, processes)
        missed += not caught.seeds
        number = str(caught.seeds) if caught.seeds else f"not within {seeds}"
        print(f"| {guard} | {number} | {caught.failure[:110]} |", flush=True)
    return 1 if missed else 0
