"""A node that lacks history: whom it asks, how fast, and what it does when nobody has it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

from actor_rig import virtual

from cluster.actors import fetcher as fetching
from cluster.actors.fetcher import AskError, AskLaterError, Fetcher, Held
from cluster.actors.supervisor import Supervisor
from cluster.consensus import PeerStatus
from cluster.history import History, HistoryError
from cluster.history.exchange import Taken
from cluster.history.gaps import Gap, Place, subtract
from cluster.history.parcel import ParcelError, Seal

PIECE_BYTES = 1_000
HOUR_S = 3_600
GOOD = b""  # in a script: a piece as it should be


class FakeHistory:
    """Lacks what it is told to; takes pieces of ten entries each."""

    def __init__(self, *lacks: Gap) -> None:
        self.lacks = list(lacks)
        self.exchange = self
        self.counts = {"rows_fetched": 0, "bytes_fetched": 0}
        self.since_ms = 0
        self.expired_before_ms = 0
        self.taken: list[tuple[Place, bytes]] = []
        self.listeners: list[Callable[[], None]] = []
        self.times: list[float] = []

    @property
    def is_complete(self) -> bool:
        return not self.lacks

    def on_gap(self, listener: Callable[[], None]) -> None:
        self.listeners.append(listener)

    def skip(self, gap: Gap) -> None:
        self.lacks.append(gap)
        for listener in self.listeners:
            listener()

    def kept_since_ms(self) -> int:
        return self.since_ms

    async def flushed(self, index: int) -> None: ...

    async def forget_expired(self, since_ms: int) -> None:
        self.lacks = [gap for gap in self.lacks if gap.until_ms >= since_ms]

    async def take(self, seal: Seal, start: Place, sealed: bytes) -> Taken:
        if sealed.startswith(b"damaged"):
            raise ParcelError("a piece of history arrived damaged")
        for gap in self.lacks:
            if gap.start <= start and start.entry <= gap.last_index:
                end = Place(min(start.entry + 10, int(sealed) + 1))
                self.lacks.remove(gap)
                self.lacks += subtract(gap, start, end)
                self.taken.append((start, sealed))
                self.times.append(asyncio.get_running_loop().time())
                self.lacks.sort()
                return Taken(end, 1, 0, self.lacks)
        raise HistoryError("nothing is lacking there")


class FakeConsensus:
    cluster_id = "c1"

    def __init__(self, ids: tuple[str, ...]) -> None:
        self.ids = ids

    def peers(self) -> list[PeerStatus]:
        return [PeerStatus(i, True, {"http": i}, 0, 0.0) for i in self.ids]


class FakeRaft:
    caught_up = True
    leader_id = "b"
    applied_index = 1

    def __init__(self, *ids: str) -> None:
        self.consensus = FakeConsensus(ids)


class Members:
    """The histories of other members: by name what they lack; what else they do is a script."""

    def __init__(self, **lacking: list[tuple[int, int]]) -> None:
        self.lacking = lacking
        self.asked: list[tuple[str, str, int]] = []
        self.scripts: dict[str, list[Exception | bytes]] = {}
        self.cluster_id = "c1"

    def _next(self, name: str) -> bytes | None:
        script = self.scripts.get(name)
        if not script:
            return None
        step = script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def held(self, base_url: str) -> Held:
        name = base_url.removeprefix("http://")
        self.asked.append((name, "held", 0))
        if name not in self.lacking:
            raise AskError("nobody there")
        return Held(self.cluster_id, 1_000, self.lacking[name])

    async def piece(self, base_url: str, start: Place, last_index: int, since_ms: int) -> bytes:
        name = base_url.removeprefix("http://")
        self.asked.append((name, "piece", start.entry))
        return self._next(name) or str(last_index).encode().ljust(PIECE_BYTES)

    async def close(self) -> None: ...

    def pieces(self, name: str) -> list[int]:
        return [entry for who, what, entry in self.asked if (who, what) == (name, "piece")]


class World:
    """A fetcher at work."""

    def __init__(self, history: FakeHistory, members: Members, rate: float = 1e9) -> None:
        self.history, self.members = history, members
        self.raft = FakeRaft("a", "b", "c")
        self.fetcher = Fetcher(cast(Any, self.raft), cast(History, history), members, None, rate)
        self.supervisor = Supervisor([self.fetcher], lambda name: None)

    async def run(self, seconds: float) -> World:
        self.supervisor.start()
        await asyncio.sleep(seconds)
        return self

    async def stop(self) -> None:
        await self.supervisor.stopped()


@virtual
async def test_a_complete_history_asks_nobody_and_never_ticks() -> None:
    loop = asyncio.get_running_loop()
    world = World(FakeHistory(), Members(a=[], b=[], c=[]))
    await world.run(0.001)
    assert world.fetcher._handle is None
    await asyncio.sleep(HOUR_S)
    assert world.members.asked == []
    assert world.fetcher.activity == "complete"
    world.history.skip(Gap(1, 0, 5, 9))  # and is awake at once when something lacks
    begun_s = loop.time()
    await asyncio.sleep(0.1)
    assert world.history.times[0] == begun_s
    assert world.history.is_complete
    assert world.fetcher._handle is None
    await world.stop()


@virtual
async def test_followers_are_asked_before_the_leader_and_for_what_they_have() -> None:
    members = Members(a=[(1, 30)], b=[], c=[(31, 1_000)])
    world = await World(FakeHistory(Gap(1, 0, 50, 9)), members).run(5)
    assert members.pieces("a") == [31, 41]
    assert members.pieces("c") == [1, 11, 21]
    assert members.pieces("b") == []
    assert [start.entry for start, _ in world.history.taken] == [31, 41, 1, 11, 21]
    assert world.fetcher.activity == "complete"
    await world.stop()


@virtual
async def test_another_member_goes_on_where_one_died() -> None:
    members = Members(a=[], b=[], c=[])
    members.scripts["a"] = [GOOD, GOOD, AskError("connection lost")]
    world = await World(FakeHistory(Gap(1, 0, 50, 9)), members).run(5)
    assert members.pieces("a") == [1, 11, 21]
    assert members.pieces("c") == [21, 31, 41]
    assert world.history.is_complete
    assert world.fetcher.counts["sources_failed"] == 1
    await world.stop()


@virtual
async def test_a_member_that_hangs_is_given_up() -> None:
    class Hanging(Members):
        async def piece(self, base_url: str, *where: Any) -> bytes:
            if base_url == "http://a":
                await asyncio.sleep(HOUR_S)
            return await super().piece(base_url, *where)

    world = await World(FakeHistory(Gap(1, 0, 50, 9)), Hanging(a=[], b=[], c=[])).run(60)
    assert world.history.is_complete
    assert "no answer in time" in world.fetcher.last_error or not world.fetcher.last_error
    assert world.fetcher.counts["sources_failed"] == 1
    await world.stop()


@virtual
async def test_a_damaged_piece_is_asked_for_again_and_then_of_another_member() -> None:
    members = Members(a=[], b=[], c=[])
    members.scripts["a"] = [b"damaged", GOOD, *[b"damaged"] * fetching.DAMAGED_MAX]
    world = await World(FakeHistory(Gap(1, 0, 50, 9)), members).run(5)
    assert members.pieces("a") == [1, 1, *[11] * fetching.DAMAGED_MAX]
    assert members.pieces("c") == [11, 21, 31, 41]
    assert world.fetcher.counts["pieces_refused"] == 1 + fetching.DAMAGED_MAX
    assert world.fetcher.gauges()["history_pieces_refused"] == 1 + fetching.DAMAGED_MAX
    assert world.history.is_complete
    await world.stop()


@virtual
async def test_a_member_without_time_is_waited_for_but_not_for_ever() -> None:
    members = Members(a=[], b=[], c=[])
    busy = AskLaterError("others are being given history")
    members.scripts["a"] = [busy] * 3
    world = await World(FakeHistory(Gap(1, 0, 20, 9)), members).run(2)
    assert members.pieces("a") == [1, 1]
    await asyncio.sleep(5)
    assert members.pieces("a") == [1, 1, 1, 1, 11]
    await world.stop()
    members.scripts["a"] = [busy] * 10_000
    world = await World(FakeHistory(Gap(1, 0, 20, 9)), members).run(HOUR_S)
    assert members.pieces("c") == [1, 11]
    await world.stop()


@virtual
async def test_the_pace_is_kept_by_bytes_and_by_rows() -> None:
    world = await World(FakeHistory(Gap(1, 0, 1_000, 9)), Members(a=[], b=[], c=[]), 500).run(100)
    steps = [late - early for early, late in pairwise(world.history.times)]
    assert steps, "nothing was fetched"
    assert min(steps) > PIECE_BYTES / 500 * 0.99
    await world.stop()


@virtual
async def test_nothing_is_fetched_at_pace_zero_or_before_the_node_has_caught_up() -> None:
    world = await World(FakeHistory(Gap(1, 0, 20, 9)), Members(a=[], b=[], c=[]), 0).run(HOUR_S)
    assert (world.members.asked, world.fetcher.activity) == ([], "waiting")
    await world.stop()
    world = World(FakeHistory(Gap(1, 0, 20, 9)), Members(a=[], b=[], c=[]))
    world.raft.caught_up = False
    await world.run(30)
    assert world.members.asked == []
    world.raft.caught_up = True
    await asyncio.sleep(2)
    assert world.history.is_complete
    await world.stop()


@virtual
async def test_what_nobody_would_keep_is_not_asked_for() -> None:
    history = FakeHistory(Gap(1, 0, 20, 9), Gap(30, 0, 40, 99))
    history.since_ms = 50
    world = await World(history, Members(a=[], b=[], c=[])).run(5)
    assert world.members.pieces("a") == [30, 40]
    assert history.is_complete
    await world.stop()


@virtual
async def test_what_nobody_has_is_told_once_and_asked_for_now_and_then() -> None:
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    fetching.log.addHandler(handler)
    lacking = [(5, 9)]
    members = Members(a=lacking, b=lacking, c=lacking)
    world = await World(FakeHistory(Gap(1, 0, 20, 9)), members).run(HOUR_S)
    fetching.log.removeHandler(handler)
    assert [text for text in told if "no member" in text] == [
        "no member has the history of log entries 5 to 9"
    ]
    assert world.fetcher.activity == "unavailable"
    assert world.history.lacks == [Gap(5, 0, 9, 9)]
    rounds = sum(who == "a" for who, what, _ in members.asked if what == "held")
    assert 50 < rounds < 80  # once a minute
    members.lacking["c"] = []
    await asyncio.sleep(61)
    assert world.history.is_complete
    await world.stop()


@virtual
async def test_while_a_member_is_away_nothing_counts_as_lost() -> None:
    lacking = [(5, 9)]
    world = await World(FakeHistory(Gap(1, 0, 20, 9)), Members(a=lacking, b=lacking)).run(30)
    assert world.fetcher.activity == "waiting"
    assert "c: nobody there" in world.fetcher.last_error
    await world.stop()


@virtual
async def test_a_node_of_another_cluster_is_not_asked_for_anything() -> None:
    members = Members(a=[], b=[], c=[])
    members.cluster_id = "c2"
    world = await World(FakeHistory(Gap(1, 0, 20, 9)), members).run(30)
    assert {what for _, what, _ in members.asked} == {"held"}
    assert "not a member of this cluster" in world.fetcher.last_error
    await world.stop()
