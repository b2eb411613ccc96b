"""What the leader remembers of a worker. Liveness stays here, out of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.actors.services import Sink

if TYPE_CHECKING:
    from cluster.actors.capacity import Pool


class Session:
    """One registered worker, connected or not. Times are monotonic ms.

    `sink` is None while it is not connected; `credit` is how many more jobs it may be sent. While
    it can be given jobs it is in a pool, which keeps it in the order of its credit."""

    __slots__ = (
        "_credit",
        "draining",
        "gone_since_ms",
        "grace_ms",
        "look_slot",
        "polls",
        "pool",
        "seen_ms",
        "sink",
        "worker_id",
    )

    def __init__(self, worker_id: int, sink: Sink | None, now_ms: int, grace_ms: int) -> None:
        self.worker_id = worker_id
        self.sink = sink
        self._credit = 0
        self.pool: Pool | None = None  # see `enter`
        self.draining = False
        self.seen_ms = now_ms
        self.gone_since_ms = now_ms if sink is None else 0
        self.grace_ms = grace_ms
        self.look_slot: int | None = None  # see `Watch`
        self.polls = False  # it grants credit for one poll at a time

    @property
    def credit(self) -> int:
        return self._credit

    @credit.setter
    def credit(self, credit: int) -> None:
        pool = self.pool
        if pool is not None:
            pool.drop(self, self._credit)
            pool.put(self, credit)
        self._credit = credit

    def enter(self, pool: Pool | None) -> None:
        """Be found by whoever looks for free capacity there, or nowhere."""
        if self.pool is not None:
            self.pool.drop(self, self._credit)
        if pool is not None:
            pool.put(self, self._credit)
        self.pool = pool

    def refund(self, credit: int) -> None:
        """Jobs that were to be sent were not. A lost connection's credit is gone anyway, and a
        poll's may be: it must not lure jobs to a worker that does not wait for them."""
        if self.sink is not None and not self.polls:
            self.credit += credit
