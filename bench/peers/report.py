"""What a run says: its tables, who failed, the settings, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.peers import servers, table
from bench.peers.catalogue import Peer

NOT_COMPARABLE = (
    "What is not comparable: every peer keeps its jobs on one server, whose disk holds the only "
    "copy; `quorate` acknowledges after two of three nodes did fsync, and here all three share "
    "one disk and two cores. `quorate-1` is one node, as the peers have one server. Quorate keeps "
    "the history of every job; the peers were told to keep no results. One worker and one client "
    "process each. Celery and Huey take a job off the queue before it runs, so a killed worker "
    "loses it; the others run it again. Who did less than 200 jobs/s end to end has no latency at "
    "200/s (-)."
)
SERVERS = {
    "redis": "appendfsync always, no replica",
    "postgres": "as initdb makes it: fsync and synchronous_commit on, no replica",
}


def report(
    peers: Sequence[Peer], rounds: Sequence[table.Round], failed: Mapping[str, str]
) -> list[str]:
    """Everything below the heading and the machine, as lines of Markdown."""
    kinds = sorted({peer.server for peer in peers} & SERVERS.keys())
    return [
        *[f"{servers.version(kind)}: {SERVERS[kind]}." for kind in kinds],
        "",
        *table.figures_table(peers, rounds),
        "",
        "How many times better Quorate was in the same round (below 1 the peer was better):",
        "",
        *table.ratios_table(peers, rounds),
        "",
        *[f"{name} failed: {why}." for name, why in failed.items()],
        NOT_COMPARABLE,
        "",
        *table.settings_list(peers),
    ]
