"""File descriptors: how many there may be, and how many there are."""

from __future__ import annotations

import logging
from pathlib import Path

try:
    import resource
except ImportError:  # not everywhere: then nobody knows the limit
    resource = None  # type: ignore[assignment]

log = logging.getLogger("quorate.vitals")

OWN = 128  # journal, snapshots, history, other nodes, what waits to be let in


def limit() -> int:
    """How many this process may have; 0 when that is not limited, or nobody tells."""
    if resource is None:
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> None:
    """The soft limit becomes the hard one: it is only there for programs of another time."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:
        log.warning("the limit of %d file descriptors stays: %s", soft, error)
    else:
        log.info("the limit of file descriptors was raised from %d to %d", soft, hard)


def shortage(expected_connections: int) -> str | None:
    """What is wrong with the limit, if so."""
    may, needed = limit(), expected_connections + OWN
    if not may or may >= needed:
        return None
    return (
        f"this process may open {may} files and connections, {expected_connections} connections "
        f"are expected (connections_expected) and the node itself needs some {OWN}: raise the "
        f"limit to {needed} (ulimit -n, LimitNOFILE=) or lower the expectation"
    )


def count() -> int:
    """How many are open; it takes a look at each of them. 0 where nobody tells."""
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return 0
