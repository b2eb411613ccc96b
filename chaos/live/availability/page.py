"""The table and the plot of docs/reliability.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from chaos.live.availability.figures import QUANTILES, Measured, quantile

BEGIN, END = "<!-- availability: begin -->", "<!-- availability: end -->"
PICTURE = "![The longest silences after each fault](img/availability.svg)"
HEAD = (
    "| fault | n | no submission accepted: p50 | p90 | p99 | no job started: p50 | p90 | p99 "
    "| acknowledged | lost | doubled | ran again |"
)
# Of the plot, in pixels.
WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 900, 330, 30, 60, 46, 14
COLOURS = {"submissions": "#2f6f9f", "starts": "#c4773b"}
TICKS_MS = (10, 30, 100, 300, 1_000, 3_000, 10_000)


def table(told: Sequence[Measured]) -> str:
    lines = [HEAD, "|---" * HEAD.count(" | ") + "|---|"]
    for each in told:
        parts = [each.about, str(len(each.outages))]
        for values in _values(each).values():
            parts += [_time(quantile(values, share)) for share in QUANTILES]
        parts += [f"{each.acknowledged:,}", str(each.lost), str(each.doubled)]
        lines.append(f"| {' | '.join([*parts, str(each.ran_again)])} |")
    return "\n".join(lines)


def circumstances(told: Sequence[Measured]) -> str:
    """When, of which commit, and how busy the machine was besides."""
    days = sorted({each.at[:10] for each in told})
    commits = sorted({each.commit for each in told})
    loads = [load for each in told for load in each.load] or [0.0]
    rates = sorted({f"{each.rate:g}" for each in told})
    return (
        f"Measured {' and '.join(days)} at {' and '.join(rates)} jobs a second, commit "
        f"{', '.join(commits)}; load average of the machine {min(loads):g} to {max(loads):g}."
    )


def fill(text: str, told: Sequence[Measured]) -> str:
    """The page with a new table. Raises ValueError where the marks are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} and {END}")
    parts = [f"{before}{BEGIN}", table(told), "", circumstances(told), "", PICTURE, f"{END}{after}"]
    return "\n".join(parts)


def plot(told: Sequence[Measured]) -> str:
    """Bars to p50, whiskers to p90 and p99, on a logarithmic axis."""
    height = TOP + ROW * len(told) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _words(LEFT, 18, "the longest silence after a fault: bar p50, mark p90, end p99"),
    ]
    for n, (what, colour) in enumerate(COLOURS.items()):
        x = LEFT + 400 + n * 110
        parts.append(f'<rect x="{x}" y="8" width="12" height="12" fill="{colour}"/>')
        parts.append(_words(x + 17, 18, what))
    for tick_ms in TICKS_MS:
        x = _place(tick_ms)
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{TOP - 8}" y2="{height - 14}" stroke="#dddddd"/>'
        )
        parts.append(_words(x, TOP - 14, _time(tick_ms), "middle"))
    for n, each in enumerate(told):
        y = TOP + n * ROW
        parts.append(_words(LEFT - 10, y + 19, escape(each.about), "end"))
        for m, (what, values) in enumerate(_values(each).items()):
            parts += _bar(y + m * (BAR + 2), values, COLOURS[what])
    return "\n".join([*parts, "</svg>", ""])


def _values(each: Measured) -> dict[str, list[float]]:
    return {
        "submissions": [outage.submissions_ms for outage in each.outages],
        "starts": [outage.starts_ms for outage in each.outages],
    }


def _bar(y: float, values: list[float], colour: str) -> list[str]:
    p50, p90, p99 = (_place(quantile(values, share)) for share in QUANTILES)
    middle = y + BAR / 2
    line = f'y1="{middle}" y2="{middle}" stroke="{colour}"'
    return [
        f'<rect x="{LEFT}" y="{y}" width="{round(p50 - LEFT, 1)}" height="{BAR}" fill="{colour}"/>',
        f'<line x1="{p50}" x2="{p99}" {line} stroke-width="2"/>',
        f'<line x1="{p90}" x2="{p90}" y1="{y + 2}" y2="{y + BAR - 2}" stroke="{colour}" '
        'stroke-width="3"/>',
    ]


def _place(ms: float) -> float:
    low, high = math.log(TICKS_MS[0]), math.log(TICKS_MS[-1])
    share = (math.log(max(ms, TICKS_MS[0])) - low) / (high - low)
    return round(LEFT + min(share, 1.0) * (WIDTH - LEFT - RIGHT), 1)


def _words(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'


def _time(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1_000 else f"{ms / 1_000:.3g} s"
