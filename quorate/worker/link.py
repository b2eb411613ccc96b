"""What a link between worker and cluster has to know and offer, whichever protocol it speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .outbox import Outbox
from .runner import Runner


class LinkLost(Exception):
    """The node is gone, silent, or no longer the leader; the next one has to be found."""


@dataclass
class Identity:
    """Who the worker is; `worker_id` is given by the cluster and kept across reconnects."""

    name: str
    slots: int
    queues: list[str]
    tasks: list[str]
    labels: dict[str, str] = field(default_factory=dict)
    worker_id: str | None = None


@dataclass
class Desk:
    """Everything a link works with."""

    nodes: list[str]
    identity: Identity
    runner: Runner
    outbox: Outbox
    on_drain: Callable[[], None]  # the cluster wants this worker to finish and leave
    on_registered: Callable[[], None]


class Link(Protocol):
    """One way to talk to the cluster."""

    async def run(self) -> None:
        """Serves until `leave`, through any number of reconnects. WorkerRefused ends it."""

    async def leave(self) -> None:
        """Deregisters; returns when the cluster has been told or cannot be."""

    def stop_taking(self) -> None:
        """Tells the cluster to send no more jobs."""
