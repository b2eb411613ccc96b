"""Which peers there are, how each is installed and started, and with which settings.

Versions are pinned so that a figure can be repeated; a setting that differs from the peer's
default is told in `setting`, because it belongs to the figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = Path(__file__).with_name("adapters")
HOME = ROOT / ".peers"  # one environment for each peer in Python, one for those in JavaScript
MODULES = HOME / "node"


@dataclass(frozen=True)
class Peer:
    """One row of the comparison."""

    name: str
    server: str  # redis, postgres, quorate or quorate-1
    packages: tuple[str, ...]  # the first one is the peer, as package==version
    driver: tuple[str, ...]
    worker: tuple[str, ...]
    submits: str  # how many per call, how many calls at once
    setting: str

    @property
    def version(self) -> str:
        return self.packages[0].rpartition("==")[2] if self.packages else "this commit"

    @property
    def is_node(self) -> bool:
        return self.driver[0] == "node"

    @property
    def environment(self) -> Path | None:
        """Where it is installed; None for Quorate, which runs in the environment of the bench."""
        if not self.packages:
            return None
        return MODULES if self.is_node else HOME / self.name


def _python(
    name: str, server: str, packages: tuple[str, ...], worker: str, submits: str, setting: str
) -> Peer:
    words = tuple(worker.split())
    return Peer(name, server, packages, ("python", f"{name}_peer.py"), words, submits, setting)


def _node(name: str, server: str, package: str, submits: str, setting: str) -> Peer:
    script = f"{name}_peer.mjs"
    packages = (package, "ioredis==5.11.1") if server == "redis" else (package,)
    return Peer(
        name,
        server,
        packages,
        ("node", script, "drive"),
        ("node", script, "work"),
        submits,
        setting,
    )


BULK = "1,000 a call, 4 calls at once"
THREADS = "singles, 16 threads"
TASKS = "singles, 32 at once"

_QUORATE_WORKER = "python -m quorate worker quorate_peer:app --slots 2000 --log-level warning"

PEERS = (
    Peer(
        "quorate", "quorate", (), ("python", "quorate_peer.py"), tuple(_QUORATE_WORKER.split()),
        BULK, "three nodes, each with fsync; 2,000 slots; history kept",
    ),
    Peer(
        "quorate-1", "quorate-1", (), ("python", "quorate_peer.py"),
        tuple(_QUORATE_WORKER.split()), BULK, "one node with fsync; 2,000 slots; history kept",
    ),
    _python(
        "celery", "redis", ("celery[redis]==5.7.0",),
        "celery -A celery_peer worker -P threads -c 8 -l warning --without-gossip "
        "--without-mingle --without-heartbeat",
        THREADS, "8 threads, prefetch 800, acknowledges before running (default), no results",
    ),
    _python(
        "arq", "redis", ("arq==0.28.0",), "arq arq_peer.WorkerSettings",
        TASKS, "max_jobs 100, polls every 10 ms (default 500), no results",
    ),
    _python(
        "rq", "redis", ("rq==3.0.0",),
        "rq worker -w rq.worker.SimpleWorker --logging_level WARNING default",
        "1,000 a call, 2 calls at once", "SimpleWorker (no fork per job), no results",
    ),
    _python(
        "dramatiq", "redis", ("dramatiq[redis]==2.2.1",),
        "dramatiq -p 1 -t 8 dramatiq_peer", THREADS, "1 process, 8 threads (default), no results",
    ),
    _python(
        "taskiq", "redis", ("taskiq==0.13.0", "taskiq-redis==1.2.4", "uvloop"),
        "taskiq worker -w 1 --max-async-tasks 100 --log-level WARNING "
        "taskiq_peer:broker",
        TASKS, "RedisStreamBroker, 1 process, 100 tasks at once (default), no results",
    ),
    _python(
        "saq", "redis", ("saq[redis]==0.26.4", "typing_extensions"),
        "saq saq_peer.settings --quiet",
        TASKS, "concurrency 100, no results",
    ),
    _python(
        "huey", "redis", ("huey[redis]==3.5.4",), "huey_consumer huey_peer.huey -k thread -w 8 -q",
        THREADS, "8 threads, taken off the queue before running (its way), no results",
    ),
    _python(
        "procrastinate", "postgres", ("procrastinate==3.10.0", "psycopg[binary,pool]"),
        "procrastinate --app procrastinate_peer.app worker -c 30 --delete-jobs always",
        BULK, "concurrency 30, finished jobs deleted",
    ),
    _python(
        "apscheduler", "postgres", ("apscheduler[asyncpg,sqlalchemy]==4.0.0a6", "anyio<4.9"),
        "python apscheduler_peer.py work",
        TASKS, "pre-release, max_concurrent_jobs 100, asyncpg for store and events, no results",
    ),
    _node("bullmq", "redis", "bullmq==6.7.0", BULK, "concurrency 100, finished jobs removed"),
    _node(
        "graphile", "postgres", "graphile-worker==0.17.3", BULK,
        "concurrency 24, local queue of 500, completions batched",
    ),
)  # fmt: skip


def named(names: str) -> list[Peer]:
    """The peers of a comma list; all when it is empty. ValueError for an unknown name."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {peer.name: peer for peer in PEERS}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"unknown peers: {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in wanted] or list(PEERS)
