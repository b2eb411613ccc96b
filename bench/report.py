"""The table of targets in docs/performance.md, with the figures of a run.

Targets are judged by the figures themselves, so that a row cannot be called reached by hand. What
limits a row and what would move it is written in the page and kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.harness import Result
from chaos.live.processes import ROOT

PAGE = ROOT / "docs" / "performance.md"
HEAD = "| row | measure | target | figure | reached |"

_NUMBER = re.compile(r"-?[\d,]+(?:\.\d+)?")


@dataclass(frozen=True)
class Bound:
    """A figure by its name in a result, and what it must not go beyond."""

    figure: str
    limit: float
    at_least: bool = False

    def holds(self, result: Result) -> bool:
        value = number(result.figures[self.figure])
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Target:
    """What of a row's results is shown and judged; a row's other results are left out."""

    bounds: tuple[Bound, ...]
    shown: tuple[str, ...] = ()  # besides what is judged

    def of(self, results: Sequence[Result], row: str) -> list[Result]:
        names = {bound.figure for bound in self.bounds}
        return [each for each in results if each.row == row and names <= each.figures.keys()]

    def figure(self, results: Sequence[Result]) -> str:
        return "; ".join(self._one(result, len(results) > 1) for result in results)

    def reached(self, results: Sequence[Result]) -> str:
        if not all(result.holds for result in results):
            return "outcome wrong"
        met = [bound.holds(result) for result in results for bound in self.bounds]
        return "yes" if all(met) else "no" if not any(met) else "in part"

    def _one(self, result: Result, is_named: bool) -> str:
        names = [bound.figure for bound in self.bounds] + list(self.shown)
        figures = ", ".join(
            result.figures[name] if name == "rate" else f"{name} {result.figures[name]}"
            for name in names
            if name in result.figures
        )
        return f"{result.what}: {figures}" if is_named else figures


TARGETS = {
    "P1": Target((Bound("rate", 150_000, at_least=True),), ("cpu",)),
    "P2": Target(
        (Bound("rate", 50_000, at_least=True),), ("cpu", "snapshots", "leader's longest stall")
    ),
    "P3": Target((Bound("ratio", 60, at_least=True),), ("rate", "bare echo")),
    "P4": Target((Bound("p50", 2), Bound("p99", 6)), ("p99.9", "max", "bare echo")),
    "P5": Target((Bound("p99", 25),), ("p50", "max")),
    "P6": Target((Bound("p50", 300), Bound("max", 1_000))),
    "P7": Target((Bound("most", 300),)),
    "P8": Target((Bound("worst ratio", 1.3),)),
    "P9": Target((Bound("ready after", 5),)),
    "P10": Target((Bound("leader", 2),)),
    "P11": Target((Bound("load", 1),)),
}


def number(text: str) -> float:
    """The first number in a figure."""
    found = _NUMBER.search(text)
    if found is None:
        raise ValueError(f"no number in {text!r}")
    return float(found[0].replace(",", ""))


def filled(page: str, results: Sequence[Result]) -> str:
    """The page's table of targets with new figures; rows that were not measured stay."""
    lines = page.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(HEAD))
    for at in range(start + 2, len(lines)):
        cells = [cell.strip() for cell in lines[at].strip("|").split("|")]
        if not lines[at].startswith("| P"):
            break
        target = TARGETS.get(cells[0])
        mine = target.of(results, cells[0]) if target is not None else []
        if target is not None and mine:
            cells[3], cells[4] = target.figure(mine), target.reached(mine)
            lines[at] = f"| {' | '.join(cells)} |"
    return "\n".join(lines) + "\n"


def table(page: str) -> str:
    """The rows of the table of targets in a page."""
    return "\n".join(line for line in page.splitlines() if re.match(r"\| P\d", line))
