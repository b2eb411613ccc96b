"""What the leader remembers of a worker. Liveness stays here, out of the log."""

from __future__ import annotations

from cluster.actors.services import Sink
from cluster.projections.ready import Lane, ReadyQueues


class Session:
    """One registered worker, connected or not. Times are monotonic ms.

    `sink` is None while it is not connected; `credit` is how many more jobs it may be sent."""

    __slots__ = (
        "_lanes",
        "_lanes_version",
        "credit",
        "draining",
        "gone_since_ms",
        "grace_ms",
        "polls",
        "seen_ms",
        "sink",
        "worker_id",
    )

    def __init__(self, worker_id: int, sink: Sink | None, now_ms: int, grace_ms: int) -> None:
        self.worker_id = worker_id
        self.sink = sink
        self.credit = 0
        self.draining = False
        self.seen_ms = now_ms
        self.gone_since_ms = now_ms if sink is None else 0
        self.grace_ms = grace_ms
        self.polls = False  # it grants credit for one poll at a time
        self._lanes: list[Lane] = []
        self._lanes_version = -1

    def lanes(
        self, ready: ReadyQueues, queues: tuple[str, ...], tasks: tuple[str, ...]
    ) -> list[Lane]:
        """The lanes this worker serves; looked up again only when a new lane appeared."""
        if self._lanes_version != ready.version:
            self._lanes = ready.lanes_of(queues, tasks)
            self._lanes_version = ready.version
        return self._lanes

    def refund(self, credit: int) -> None:
        """Jobs that were to be sent were not. A lost connection's credit is gone anyway, and a
        poll's may be: it must not lure jobs to a worker that does not wait for them."""
        if self.sink is not None and not self.polls:
            self.credit += credit

    def forget_lanes(self) -> None:
        self._lanes_version = -1
