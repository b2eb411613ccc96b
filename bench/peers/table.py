"""The tables of a run: medians over the rounds, and Quorate against each peer in the same round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isnan
from statistics import median

from bench.peers.catalogue import Peer
from bench.peers.harness import Figures

REFERENCE = "quorate"
Round = Mapping[str, Figures]  # by the peer's name

# Name of the column, the figure, its text, and whether more of it is better.
Column = tuple[str, Callable[[Figures], float], str, bool]
COLUMNS: Sequence[Column] = (
    ("submit, jobs/s", lambda f: f.submit, ",.0f", True),
    ("end to end, jobs/s", lambda f: f.end_to_end, ",.0f", True),
    ("backlog, jobs/s", lambda f: f.drain, ",.0f", True),
    ("CPU-s per 10,000", lambda f: f.cpu_s, ".2f", False),
    ("p50 ms", lambda f: f.p50_ms, ".2f", False),
    ("p99 ms", lambda f: f.p99_ms, ".2f", False),
    ("memory MiB", lambda f: f.memory_mib, ".0f", False),
)


def figures_table(peers: Sequence[Peer], rounds: Sequence[Round]) -> list[str]:
    """One line for each peer that was measured."""
    lines = [
        f"| peer | jobs | {' | '.join(name for name, *_ in COLUMNS)} | each job ran once |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for peer in peers:
        found = [each[peer.name] for each in rounds if peer.name in each]
        if found:
            cells = [_cell(median(map(figure, found)), text) for _, figure, text, _ in COLUMNS]
            lines.append(
                f"| {_label(peer)} | {_jobs(found)} | {' | '.join(cells)} | {_outcome(found)} |"
            )
    return lines


def ratios_table(peers: Sequence[Peer], rounds: Sequence[Round]) -> list[str]:
    """How many times better Quorate was in the same round; below 1 the peer was better."""
    names = [name.removesuffix(", jobs/s") for name, *_ in COLUMNS]
    lines = [
        f"| Quorate against | {' | '.join(names)} |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for peer in peers:
        both = [each for each in rounds if peer.name in each and REFERENCE in each]
        if both and peer.name != REFERENCE:
            cells = [
                _times(
                    median(ratio(each[REFERENCE], each[peer.name], figure, more) for each in both)
                )
                for _, figure, _, more in COLUMNS
            ]
            lines.append(f"| {peer.name} | {' | '.join(cells)} |")
    return lines


def ratio(
    ours: Figures, theirs: Figures, figure: Callable[[Figures], float], more_is_better: bool
) -> float:
    """Above 1 when Quorate's figure is the better one."""
    better, worse = figure(ours), figure(theirs)
    if not more_is_better:
        better, worse = worse, better
    return better / worse if worse else float("inf")


def settings_list(peers: Sequence[Peer]) -> list[str]:
    return [f"- {_label(peer)}: submits {peer.submits}; {peer.setting}." for peer in peers]


def _label(peer: Peer) -> str:
    stores = {"redis": "Redis", "postgres": "PostgreSQL"}.get(peer.server)
    return f"{peer.name} {peer.version}{f' on {stores}' if stores else ''}"


def _cell(value: float, text: str) -> str:
    return "-" if isnan(value) else f"{value:{text}}"


def _times(value: float) -> str:
    if isnan(value):
        return "-"
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def _jobs(found: Sequence[Figures]) -> str:
    return " to ".join(
        f"{count:,}" for count in sorted({min(f.jobs for f in found), max(f.jobs for f in found)})
    )


def _outcome(found: Sequence[Figures]) -> str:
    faults = [figures.faults for figures in found if figures.faults != "none"]
    return "NO: " + "; ".join(faults) if faults else "yes"
