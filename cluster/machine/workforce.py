"""What registered workers offer together: counted as they come and go, because nobody who asks
shall walk through a hundred thousand rows."""

from __future__ import annotations

from cluster.machine.model import WorkerSpec

Offer = tuple[tuple[str, ...], tuple[str, ...]]


class Workforce:
    """Sums over `Tables.workers`. Workers that drain count for their slots only."""

    __slots__ = ("_offers", "active", "slots")

    def __init__(self) -> None:
        self.slots = 0
        self.active = 0
        self._offers: dict[Offer, int] = {}  # (queues, tasks) -> active workers

    def add(self, spec: WorkerSpec, draining: bool) -> None:
        self._count(spec, draining, +1)

    def remove(self, spec: WorkerSpec, draining: bool) -> None:
        self._count(spec, draining, -1)

    def _count(self, spec: WorkerSpec, draining: bool, step: int) -> None:
        self.slots += step * spec.slots
        if draining:
            return
        self.active += step
        offer = (spec.queues, spec.tasks)
        left = self._offers.get(offer, 0) + step
        if left:
            self._offers[offer] = left
        else:
            del self._offers[offer]

    def offers(self, queue: str, name: str) -> bool:
        """Whether some worker would be given such a job."""
        return any(
            name in tasks and (queue in queues or "*" in queues) for queues, tasks in self._offers
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workforce) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]
