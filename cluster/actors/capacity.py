"""Which workers can take jobs now, found without looking at those that cannot.

Workers that offer the same queues and tasks form a pool: where there are a hundred thousand
workers, there are few kinds of them. In a pool they stand by their credit, most of it first, and
among equals whoever has waited longest. So nothing here costs more for workers that are busy, or
for idle ones that have nothing to do with it; it does cost more with every other kind of workers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from cluster.actors.session import Session
from cluster.machine.model import WorkerSpec
from cluster.machine.tables import Job
from cluster.projections.ready import Lane, ReadyQueues

LANES_KNOWN_MAX = 10_000  # names of queues and tasks are the users'

Offer = tuple[tuple[str, ...], tuple[str, ...]]


class Pool:
    """Workers of one kind. `size` of them can take something; `members` also have no credit."""

    def __init__(self, queues: tuple[str, ...], tasks: tuple[str, ...]) -> None:
        self.queues = queues
        self.tasks = tasks
        self.members = 0
        self.size = 0
        # A plain dict passes by all that left its front before it finds the first entry.
        self._by_credit: dict[int, OrderedDict[Session, None]] = {}
        self._credits: list[int] = []  # a heap of the keys, negated
        self._names, self._any_queue = frozenset(tasks), "*" in queues
        self._lanes: list[Lane] = []
        self._lanes_version = -1

    def put(self, session: Session, credit: int) -> None:
        if credit <= 0:
            return
        equals = self._by_credit.get(credit)
        if equals is None:
            equals = self._by_credit[credit] = OrderedDict()
            heappush(self._credits, -credit)
        equals[session] = None
        self.size += 1

    def drop(self, session: Session, credit: int) -> None:
        if credit > 0:
            del self._by_credit[credit][session]
            self.size -= 1

    def first(self) -> Session | None:
        """The worker that can take most."""
        while self._credits:
            credit = -self._credits[0]
            equals = self._by_credit[credit]
            if equals:
                return next(iter(equals))
            heappop(self._credits)
            del self._by_credit[credit]
        return None

    def serves(self, queue: str, name: str) -> bool:
        return name in self._names and (self._any_queue or queue in self.queues)

    def lanes(self, ready: ReadyQueues) -> list[Lane]:
        """The lanes that its workers serve; looked up again only when a new lane appeared."""
        if self._lanes_version != ready.version:
            self._lanes = ready.lanes_of(self.queues, self.tasks)
            self._lanes_version = ready.version
        return self._lanes


class Capacity:
    """All pools of this leader."""

    def __init__(self) -> None:
        self._pools: dict[Offer, Pool] = {}
        self._serving: dict[tuple[str, str], list[Pool]] = {}

    def admit(self, session: Session, spec: WorkerSpec) -> None:
        """From now on this worker can be given what `spec` offers."""
        offer = (spec.queues, spec.tasks)
        pool = self._pools.get(offer)
        if pool is None:
            pool = self._pools[offer] = Pool(*offer)
            self._serving.clear()
        if session.pool is pool:
            return
        pool.members += 1
        self.dismiss(session)
        session.enter(pool)

    def dismiss(self, session: Session) -> None:
        """It is given nothing more."""
        pool = session.pool
        if pool is None:
            return
        session.enter(None)
        pool.members -= 1
        offer = (pool.queues, pool.tasks)
        if not pool.members and self._pools.get(offer) is pool:
            del self._pools[offer]
            self._serving.clear()

    def clear(self) -> None:
        self._pools, self._serving = {}, {}

    def pools(self) -> Iterator[Pool]:
        """Those in which somebody can take something."""
        return (pool for pool in self._pools.values() if pool.size)

    def takers(
        self, queue: str, name: str, count: int, jobs_max: int, takers_max: int
    ) -> list[Taker]:
        """Who would be given `count` such jobs now if nothing else waited; nothing is taken from
        their credit."""
        pools = [pool for pool in self._pools_serving((queue, name)) if pool.size]
        able, takers = sum(pool.size for pool in pools), list[Taker]()
        left: list[tuple[Session, Pool]] = []
        try:
            while count and able and len(takers) < takers_max:
                session, pool = _most_free(pools)
                taken = min(-(-count // able), session.credit, jobs_max)
                takers.append(Taker(session, taken))
                count -= taken
                able -= 1
                if count:  # each takes once
                    session.enter(None)
                    left.append((session, pool))
        finally:
            for session, pool in left:
                session.enter(pool)
        return takers

    def _pools_serving(self, lane: tuple[str, str]) -> list[Pool]:
        pools = self._serving.get(lane)
        if pools is None:
            if len(self._serving) >= LANES_KNOWN_MAX:
                self._serving.clear()
            pools = [pool for pool in self._pools.values() if pool.serves(*lane)]
            self._serving[lane] = pools
        return pools


class Taker(NamedTuple):
    """A worker that shall get so many of the jobs that are about to be created."""

    session: Session
    share: int


class Share(NamedTuple):
    """Jobs that were taken out of the ready queues for a worker, out of its credit."""

    session: Session
    jobs: list[Job]


class _Turn:
    """One pass over all workers that can take something of what waits, each once at most."""

    def __init__(self, capacity: Capacity, ready: ReadyQueues) -> None:
        self._ready = ready
        self._pools = [
            (pool, lanes)
            for pool in capacity.pools()
            if (lanes := [lane for lane in pool.lanes(ready) if lane])
        ]
        self._sharers: dict[Lane, int] = {}  # how many are still to be served from a lane
        for pool, lanes in self._pools:
            for lane in lanes:
                self._sharers[lane] = self._sharers.get(lane, 0) + pool.size
        self._served: list[tuple[Session, Pool]] = []

    def shares(self, jobs_max: int, shares_max: int) -> list[Share]:
        heads = [  # most credit first; the place breaks ties
            (-first.credit, place)
            for place, (pool, _) in enumerate(self._pools)
            if (first := pool.first()) is not None
        ]
        heapify(heads)
        shares: list[Share] = []
        try:
            while heads and len(shares) < shares_max:
                _, place = heappop(heads)
                below = -heads[0][0] if heads else 0
                takers = self._takers(place, below, jobs_max, shares_max - len(shares))
                if not takers:
                    continue  # nothing waits for this pool any more
                shares += self._deal(takers, place)
                following = self._pools[place][0].first()
                if following is not None:
                    heappush(heads, (-following.credit, place))
        finally:
            for session, pool in self._served:
                session.enter(pool)
        return shares

    def _takers(self, place: int, below: int, jobs_max: int, takers_max: int) -> list[Taker]:
        """The next workers of a pool that get something: those before whom nobody of another pool
        comes, who has `below`. Where several lanes wait only one, as what is left of each of them
        is known when it has taken."""
        (pool, lanes), sharers = self._pools[place], self._sharers
        waits = [len(lane) for lane in lanes]
        takers: list[Taker] = []
        while len(takers) < takers_max:
            session = pool.first()
            if session is None or (takers and session.credit < below):
                break
            share = sum(-(-n // sharers[lane]) for n, lane in zip(waits, lanes, strict=True) if n)
            if not share:
                break
            for lane in lanes:
                sharers[lane] -= 1
            session.enter(None)
            self._served.append((session, pool))
            takers.append(Taker(session, min(session.credit, share, jobs_max)))
            if len(lanes) > 1:
                break
            waits[0] -= takers[-1].share
        return takers

    def _deal(self, takers: list[Taker], place: int) -> Iterator[Share]:
        """Fewer jobs may come than seemed to wait: then the last ones go without."""
        jobs = self._ready.take(self._pools[place][1], sum(taker.share for taker in takers))
        at = 0
        for session, share in takers:
            own = jobs[at : at + share]
            at += share
            if own:
                session.credit -= len(own)
                yield Share(session, own)


def _most_free(pools: list[Pool]) -> tuple[Session, Pool]:
    """Some worker of these pools can take something."""
    best: tuple[Session, Pool] | None = None
    for pool in pools:
        first = pool.first()
        if first is not None and (best is None or first.credit > best[0].credit):
            best = first, pool
    assert best is not None
    return best


def share_out(
    capacity: Capacity, ready: ReadyQueues, jobs_max: int, shares_max: int
) -> list[Share]:
    """One pass: whoever can take most is served first, with its share of each lane; a share has
    `jobs_max` jobs at most. Nothing waits for anybody who can take it when no share comes back."""
    return _Turn(capacity, ready).shares(jobs_max, shares_max)
