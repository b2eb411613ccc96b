"""What one node takes at one moment: memory, descriptors, threads, disk, and what waits in it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from msgspec import Struct, structs

from chaos.live.processes import LocalCluster, NodeChild

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Column -> sample of /metrics: the mailboxes, and what explains the other columns.
METRICS = {
    "proposals_queued": "quorate_proposals_queued",
    "proposals_waiting": "quorate_raft_proposals_waiting",
    "history_buffered": "quorate_history_rows_buffered",
    "pending": "jobs_pending_total",
    "running": "jobs_running_total",
    "log_bytes": "quorate_raft_log_bytes",
    "completed": "jobs_completed_total",
    "is_leader": "quorate_raft_is_leader",
}


class Sample(Struct):
    """`s`: since the beginning. `pid` tells one life of a node from the next."""

    s: float
    node: str
    pid: int
    rss_bytes: int
    fds: int
    threads: int
    journal_bytes: int
    snapshot_bytes: int
    history_bytes: int
    proposals_queued: float
    proposals_waiting: float
    history_buffered: float
    pending: float
    running: float
    log_bytes: float
    completed: float
    is_leader: float


COLUMNS = [field.name for field in structs.fields(Sample)]


async def take(cluster: LocalCluster, node: NodeChild, s: float) -> Sample | None:
    """None while the node does not answer, or is gone."""
    try:
        status, text = await cluster.request("GET", "/metrics", node, timeout_s=5.0)
        process = Path(f"/proc/{node.pid}")
        own = {
            "rss_bytes": int((process / "statm").read_text().split()[1]) * PAGE_BYTES,
            "fds": len(os.listdir(process / "fd")),  # noqa: PTH208 (names, not paths)
            "threads": len(os.listdir(process / "task")),  # noqa: PTH208
        }
    except (OSError, TimeoutError):
        return None
    if status != 200:
        return None
    values: dict[str, Any] = {column: _metric(text, name) for column, name in METRICS.items()}
    data = node.data
    return Sample(
        round(s, 1), node.name, node.pid,
        journal_bytes=size_of(data.glob("journal/*")),
        snapshot_bytes=size_of(data.glob("snapshots/*")),
        history_bytes=size_of(data.glob("history.sqlite*")),
        **own, **values,
    )  # fmt: skip


def size_of(paths: Iterable[Path]) -> int:
    """Files may vanish while they are looked at."""
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _metric(text: str, name: str) -> float:
    line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
    return float(line.split()[1])


def write_head(file: TextIO) -> None:
    csv.writer(file).writerow(COLUMNS)


def write_row(file: TextIO, sample: Sample) -> None:
    csv.writer(file).writerow(structs.astuple(sample))
    file.flush()


def read(file: TextIO) -> list[Sample]:
    rows = csv.DictReader(file)
    types = {field.name: field.type for field in structs.fields(Sample)}
    return [Sample(**{name: types[name](text) for name, text in row.items()}) for row in rows]
