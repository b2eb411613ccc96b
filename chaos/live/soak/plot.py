"""The columns of a soak over time, one small diagram each, one line a node."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.live.soak.sample import Sample

SHOWN = {
    "rss_bytes": ("resident memory, MiB", 1 << 20),
    "journal_bytes": ("journal, MiB", 1 << 20),
    "snapshot_bytes": ("snapshots, MiB", 1 << 20),
    "history_bytes": ("history, MiB", 1 << 20),
    "fds": ("file descriptors", 1),
    "threads": ("threads", 1),
    "pending": ("jobs waiting", 1),
    "proposals_queued": ("commands waiting for the log", 1),
}
COLOURS = ("#2f6f9f", "#c4773b", "#4f8f4f", "#8a5fa8", "#777777")
WIDTH, HEIGHT, PAD, COLUMNS = 420, 170, 34, 2
POINTS_MAX = 300


def plot(samples: Sequence[Sample]) -> str:
    """SVG. A node's line is broken where its process ended."""
    rows = -(-len(SHOWN) // COLUMNS)
    width, height = WIDTH * COLUMNS, HEIGHT * rows + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    nodes = sorted({each.node for each in samples})
    for n, node in enumerate(nodes):
        parts.append(f'<text x="{PAD + 60 * n}" y="14" fill="{COLOURS[n % 5]}">{node}</text>')
    until_s = max((each.s for each in samples), default=1.0) or 1.0
    for n, column in enumerate(SHOWN):
        x, y = n % COLUMNS * WIDTH, n // COLUMNS * HEIGHT + 20
        parts += _diagram(x, y, column, samples, nodes, until_s)
    return "\n".join([*parts, "</svg>", ""])


def _diagram(
    x: float, y: float, column: str, samples: Sequence[Sample], nodes: list[str], until_s: float
) -> list[str]:
    title, unit = SHOWN[column]
    top = max((getattr(each, column) for each in samples), default=0) or 1
    left, right, low, high = x + PAD, x + WIDTH - 14, y + HEIGHT - 24, y + 22
    parts = [
        f'<text x="{left}" y="{high - 6}">{title}: to {top / unit:.4g}</text>',
        f'<path d="M{left} {high}V{low}H{right}" fill="none" stroke="#999999"/>',
        f'<text x="{right}" y="{low + 14}" text-anchor="end">{until_s / 60:.0f} min</text>',
    ]
    for n, node in enumerate(nodes):
        own = [each for each in samples if each.node == node]
        thinned = own[:: max(1, -(-len(own) // POINTS_MAX))]
        path, pid = "", 0
        for each in thinned:
            px = left + each.s / until_s * (right - left)
            py = low - getattr(each, column) / top * (low - high)
            path += f"{'L' if each.pid == pid else 'M'}{px:.1f} {py:.1f}"
            pid = each.pid
        parts.append(f'<path d="{path}" fill="none" stroke="{COLOURS[n % 5]}"/>')
    return parts
