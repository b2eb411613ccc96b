"""All scenarios in turn, a slice of each, for as long as a night lasts, with one verdict.

Every slice that has ended is a line in a log. Started again with the same log, it goes on where it
was: what is in there is neither repeated nor forgotten.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from chaos.live.runner import NotPossibleError, Verdict, run
from chaos.live.scenario import Scenario, load

SLICE_S = 60.0
SHOWN = 10


class Slice(msgspec.Struct):
    """One scenario with one seed. `left_out` says why it could not be run here."""

    scenario: str
    seed: int
    seconds: float
    left_out: str = ""
    strikes: dict[str, int] = msgspec.field(default_factory=dict)
    recovered_s: list[float] = msgspec.field(default_factory=list)
    acknowledged: int = 0
    register_operations: int = 0
    faults: list[str] = msgspec.field(default_factory=list)
    folder: str = ""  # of data and logs, after a failure


Play = Callable[[Scenario, int, float, Path], Awaitable[Verdict]]


@dataclass
class Night:
    """`names` in turn; each round has another seed."""

    names: Sequence[str]
    seed: int
    folder: Path
    log: Path
    slice_s: float = SLICE_S
    play: Play = run

    def told(self) -> list[Slice]:
        """What has ended already."""
        if not self.log.exists():
            return []
        lines = self.log.read_text().splitlines()
        return [msgspec.json.decode(line, type=Slice) for line in lines if line]

    def plan(self) -> Iterator[tuple[str, int]]:
        """Without end; what the log has is left out."""
        done = {(each.scenario, each.seed) for each in self.told()}
        seed = self.seed
        while True:
            yield from ((name, seed) for name in self.names if (name, seed) not in done)
            seed += 1

    def run(self, minutes: float) -> list[Slice]:
        """Until so many minutes of faults are in the log."""
        told = self.told()
        plan = self.plan()
        lasted_s = sum(each.seconds for each in told)
        while lasted_s < minutes * 60:
            name, seed = next(plan)
            one = self._slice(name, seed)
            told.append(one)
            self._write(one)
            lasted_s += one.seconds
            if not lasted_s and {each.scenario for each in told} >= set(self.names):
                break  # nothing can be run on this machine
        return told

    def _slice(self, name: str, seed: int) -> Slice:
        scenario, place = load(name), self.folder / f"{name}-{seed}"
        print(f"{name}, seed {seed}: {scenario.about}", flush=True)
        shutil.rmtree(place, ignore_errors=True)  # begun before, and broken off
        try:
            verdict = asyncio.run(self._played(scenario, seed, place))
        except NotPossibleError as error:
            print(f"  left out: {error}", flush=True)
            return Slice(name, seed, 0.0, str(error))
        except (TimeoutError, RuntimeError) as error:  # before anything was done to it
            print(f"  did not start: {error}", flush=True)
            return Slice(name, seed, 1.0, faults=[f"start: {error}"], folder=str(place))
        print(verdict, flush=True)
        if not verdict.faults:
            shutil.rmtree(place, ignore_errors=True)
        figures = verdict.figures
        return Slice(
            name,
            seed,
            self.slice_s,
            strikes=dict(verdict.strikes),
            recovered_s=[round(each, 3) for each in verdict.recovered_s],
            acknowledged=int(str(figures.get("jobs acknowledged", 0))),
            register_operations=int(str(figures.get("register operations", 0))),
            faults=[str(fault) for fault in verdict.faults],
            folder=str(place) if verdict.faults else "",
        )

    async def _played(self, scenario: Scenario, seed: int, place: Path) -> Verdict:
        return await self.play(scenario, seed, self.slice_s, place)

    def _write(self, one: Slice) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as file:
            file.write(msgspec.json.encode(one) + b"\n")


def is_clean(told: Sequence[Slice]) -> bool:
    """Whether something ran, and nothing that ran found a fault."""
    return any(not each.left_out for each in told) and not any(each.faults for each in told)


def verdict_of(told: Sequence[Slice]) -> str:
    """One page for all of it; its last line begins with CLEAN, FAILED or NOTHING RAN."""
    strikes: Counter[str] = Counter()
    for each in told:
        strikes.update(each.strikes)
    recovered = sorted(s for each in told for s in each.recovered_s) or [0.0]
    ran = [each for each in told if not each.left_out]
    lines = [
        f"{sum(each.seconds for each in ran) / 60:.0f} minutes, {len(ran)} runs of "
        f"{len({each.scenario for each in ran})} scenarios, {strikes.total()} faults: "
        + ", ".join(f"{name} {count}" for name, count in sorted(strikes.items())),
        f"{sum(each.acknowledged for each in ran)} jobs acknowledged, "
        f"{sum(each.register_operations for each in ran)} operations on registers; "
        f"acknowledged again after {recovered[len(recovered) // 2]:.2f} s (median), "
        f"{recovered[-1]:.2f} s (longest)",
    ]
    left_out = {each.scenario: each.left_out for each in told if each.left_out}
    lines += [f"left out: {name}: {why}" for name, why in sorted(left_out.items())]
    failed = [each for each in ran if each.faults]
    for each in failed[:SHOWN]:
        lines.append(f"{each.scenario}, seed {each.seed}: {len(each.faults)} ({each.folder})")
        lines += [f"  {fault}" for fault in each.faults[:SHOWN]]
    if failed:
        lines.append(f"FAILED: {len(failed)} of {len(ran)} runs")
    else:
        lines.append("CLEAN" if is_clean(told) else "NOTHING RAN")
    return "\n".join(lines)
