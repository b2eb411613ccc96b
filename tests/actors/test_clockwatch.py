"""A node that compares its clock with the others': who is asked when, and what is said aloud."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest
from actor_rig import ManualLog, virtual

from chaos.sim.clock import SimClock
from cluster.actors.clockwatch import SETTLE_MS, AskError, ClockWatch
from cluster.actors.peerclocks import FRESH_MS, ROUND_TRIP_MS_MAX, ClockAnswer, PeerClocks
from cluster.actors.supervisor import Supervisor
from cluster.clock import GuardedClock, Votes
from cluster.consensus import ConsensusConfig, PeerStatus, Role
from cluster.consensus.members import Members, first_members
from cluster.raft_state import RaftState

BOUND_MS = 10_000
HOUR_MS = 3_600_000
HOUR_S = 3_600
OWN = "tzdata 1, croniter 1"


class Others:
    """The clocks of two peers, as distances from the true time; None: no answer."""

    def __init__(self, raft: RaftState, clock: SimClock) -> None:
        self.offs_ms: dict[str, int | None] = {"b": 0, "c": 0}
        self.releases = {"b": OWN, "c": OWN}
        self.delay_s = 0.001
        self.asked: list[str] = []
        self.names: dict[str, str] = {}
        self._clock = clock

    async def ask(self, base_url: str) -> ClockAnswer:
        peer = base_url.removeprefix("http://")
        self.asked.append(peer)
        await asyncio.sleep(self.delay_s)
        off_ms = self.offs_ms[peer]
        if off_ms is None:
            raise AskError("nobody there")
        wall_ms = self._clock.now_ms() - self._clock.offset_ms + off_ms
        name = self.names.get(peer, peer)
        return ClockAnswer(
            node_id=name, wall_ms=wall_ms, now_ms=wall_ms, releases=self.releases[peer]
        )


class ThreeLog(ManualLog):
    """A log that has two other members."""

    alone = False

    def peers(self) -> list[PeerStatus]:
        ids = () if self.alone else ("b", "c")
        return [PeerStatus(i, True, {"http": i}, 0, 0.0) for i in ids]

    def members(self) -> Members:
        return first_members(["me"] if self.alone else ["me", "b", "c"])


class Rig:
    """A node `a` with its watch, on virtual time."""

    def __init__(self, off_ms: int = 0) -> None:
        self.machine = SimClock(asyncio.get_running_loop())
        self.machine.set_offset(off_ms)
        self.clock = GuardedClock(self.machine, BOUND_MS)
        config = ConsensusConfig("me", "me", ("b", "c"), cast(Any, "/nowhere"))
        self.raft = RaftState(config, self.clock, "me", cast(Any, self._make_log))
        self.others = Others(self.raft, self.machine)
        self.watch = ClockWatch(self.raft, self.clock, self.others.ask, OWN, "1.0")
        self.group = Supervisor([self.watch], lambda actor: None)

    def _make_log(self, config: ConsensusConfig, machine: RaftState, on_role: Any) -> ThreeLog:
        self.log = ThreeLog(config, machine, on_role)
        return self.log

    async def start(self) -> None:
        self.group.start()
        await asyncio.sleep(0.2)

    async def stop(self) -> None:
        await self.group.stopped()

    def off_ms(self) -> int:
        """How far the time that this node runs at is from the true one."""
        return self.clock.now_ms() - (self.machine.now_ms() - self.machine.offset_ms)

    async def leads_after_s(self) -> float:
        """How long an election takes to end in leadership."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        led: asyncio.Future[None] = loop.create_future()
        self.raft.on_leadership(lambda leads: led.done() or led.set_result(None))
        self.log.become(Role.LEADER)
        await led
        return loop.time() - began_s


@virtual
async def test_the_others_are_asked_at_once_and_then_every_ten_seconds() -> None:
    rig = Rig()
    await rig.start()
    assert rig.watch.standing == "majority"
    assert sorted(rig.others.asked) == ["b", "c"]
    await asyncio.sleep(60)
    assert 10 <= len(rig.others.asked) <= 16
    await rig.stop()


@virtual
async def test_who_does_not_answer_is_asked_again_soon() -> None:
    rig = Rig()
    rig.others.offs_ms["c"] = None
    await rig.start()
    rig.others.asked.clear()
    await asyncio.sleep(10)
    assert 8 <= rig.others.asked.count("c") <= 12
    assert rig.others.asked.count("b") <= 2
    await rig.stop()


@virtual
async def test_a_jump_is_refused_told_once_and_the_others_are_asked_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    await rig.start()
    rig.others.asked.clear()
    rig.machine.jump(HOUR_MS)
    await asyncio.sleep(2.5)
    assert rig.others.asked.count("b") >= 2
    assert rig.off_ms() == 0
    assert rig.watch.gauges()["clock_refused"] == 1
    assert rig.watch.gauges()["clock_jump_seconds"] == HOUR_S
    assert rig.watch.standing == "refused"
    [warning] = rig.watch.warnings()
    assert "+3600.0 s off and refused" in warning
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1 and "jumped by +3600.0 s: refused" in errors[0]
    rig.machine.jump(-HOUR_MS)
    await asyncio.sleep(1.5)
    assert rig.watch.gauges()["clock_refused"] == 0
    assert rig.watch.warnings() == []
    assert "followed again, it is back" in caplog.records[-1].getMessage()
    await rig.stop()


@virtual
async def test_a_jump_that_all_nodes_see_is_followed_within_seconds() -> None:
    rig = Rig()
    await rig.start()
    rig.machine.jump(HOUR_MS)  # virtual machines that were resumed, say
    rig.others.offs_ms = {"b": HOUR_MS, "c": HOUR_MS}
    assert rig.off_ms() == 0
    await asyncio.sleep(3)
    assert rig.off_ms() == HOUR_MS
    assert rig.watch.standing == "majority"
    await rig.stop()


@virtual
async def test_who_was_wrong_by_as_much_and_died_does_not_vouch_for_a_jump() -> None:
    rig = Rig()
    rig.others.offs_ms["c"] = HOUR_MS
    await rig.start()
    rig.others.offs_ms["c"] = None
    await asyncio.sleep(2)
    rig.machine.jump(HOUR_MS)
    await asyncio.sleep(5)
    assert (rig.off_ms(), rig.watch.standing) == (0, "refused")
    rig.others.offs_ms["c"] = HOUR_MS  # now two of three have it, and say so
    await asyncio.sleep(5)
    assert (rig.off_ms(), rig.watch.standing) == (HOUR_MS, "majority")
    await rig.stop()


@virtual
async def test_an_operators_word_holds_against_the_others() -> None:
    rig = Rig()
    await rig.start()
    rig.machine.jump(HOUR_MS)
    await asyncio.sleep(2)
    assert rig.watch.accept()
    await asyncio.sleep(30)
    assert rig.off_ms() == HOUR_MS
    assert rig.watch.standing == "accepted"
    assert "against the majority" in rig.watch.warnings()[0]
    await rig.stop()


@virtual
async def test_skew_is_that_of_the_wall_clocks() -> None:
    rig = Rig()
    rig.others.offs_ms = {"b": 250, "c": -4_000}
    await rig.start()
    skews = rig.watch.skews_s()
    assert skews["b"] == pytest.approx(0.25, abs=0.005)
    assert skews["c"] == pytest.approx(-4, abs=0.005)
    await rig.stop()


# Leading.


@virtual
async def test_a_new_leader_whose_clock_is_vouched_for_waits_for_nothing() -> None:
    rig = Rig()
    await rig.start()
    assert await rig.leads_after_s() < 0.005
    await rig.stop()


@virtual
async def test_a_leader_that_was_wrong_from_the_start_stamps_the_majoritys_time() -> None:
    rig = Rig(off_ms=HOUR_MS)
    rig.group.start()
    assert await rig.leads_after_s() < 0.2
    true_ms = rig.machine.now_ms() - HOUR_MS
    assert true_ms - 1_000 < rig.raft.state.now_ms <= true_ms
    assert rig.watch.standing == "refused"
    await rig.stop()


@virtual
async def test_a_leader_that_reaches_nobodys_clock_leads_after_a_while() -> None:
    rig = Rig()
    rig.others.offs_ms = {"b": None, "c": None}
    rig.group.start()
    waited_s = await rig.leads_after_s()
    assert SETTLE_MS / 1000 <= waited_s < SETTLE_MS / 1000 + 0.1
    rig.log.become(Role.FOLLOWER)
    rig.log.become(Role.LEADER)
    await asyncio.sleep(0.01)
    assert rig.raft.is_leader  # it has waited once
    await rig.stop()


@virtual
async def test_a_cluster_of_one_has_nobody_to_wait_for() -> None:
    rig = Rig()
    rig.log.alone = True
    rig.group.start()
    assert await rig.leads_after_s() < 0.005
    assert rig.watch.standing == "alone"
    rig.machine.jump(HOUR_MS)
    await asyncio.sleep(60)
    assert rig.off_ms() == 0
    assert rig.watch.accept()
    assert rig.off_ms() == HOUR_MS
    await rig.stop()


@virtual
async def test_a_node_that_leads_no_more_while_it_waits_opens_no_epoch() -> None:
    rig = Rig()
    rig.others.offs_ms = {"b": None, "c": None}
    rig.group.start()
    rig.log.become(Role.LEADER)
    await asyncio.sleep(1)
    rig.log.become(Role.FOLLOWER)
    await asyncio.sleep(5)
    assert rig.log.entries == []
    await rig.stop()


# Replicated time, releases.


@virtual
async def test_replicated_time_that_is_ahead_is_told_and_lasts_until_the_clock_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    rig.raft.state.now_ms = rig.clock.now_ms() + HOUR_MS
    await rig.start()
    assert rig.watch.gauges()["clock_replicated_ahead_seconds"] == pytest.approx(HOUR_S, abs=1)
    assert "ahead of this node's" in rig.watch.warnings()[0]
    await asyncio.sleep(HOUR_S + 2)
    assert rig.watch.warnings() == []
    told = [r.getMessage() for r in caplog.records if "cluster's time" in r.getMessage()]
    assert len(told) == 2
    await rig.stop()


@virtual
async def test_other_releases_are_told_once_and_until_they_are_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    rig = Rig()
    rig.others.releases["c"] = "tzdata 2, croniter 1"
    await rig.start()
    await asyncio.sleep(60)
    assert rig.watch.differing_releases() == {"c": "tzdata 2, croniter 1"}
    assert rig.watch.gauges()["clock_releases_differ"] == 1
    assert "c: tzdata 2, croniter 1" in rig.watch.warnings()[0]
    rig.others.releases["c"] = OWN
    await asyncio.sleep(20)
    assert rig.watch.warnings() == []
    told = [r for r in caplog.records if "releases" in r.getMessage()]
    assert len(told) == 1
    await rig.stop()


# Samples.


def sampled(node_id: str = "b", round_trip_ms: int = 10) -> PeerClocks:
    clocks = PeerClocks(BOUND_MS)
    answer = ClockAnswer(node_id=node_id, wall_ms=1_000_105, now_ms=1_000_105)
    clocks.answered("b", answer, 100, 100 + round_trip_ms)
    return clocks


def test_a_sample_is_taken_at_the_middle_of_its_round_trip() -> None:
    assert sampled().votes("a", ("a", "b"), 200) == Votes((1_000_000,), 2, True)


@pytest.mark.parametrize(
    "clocks",
    [sampled(round_trip_ms=ROUND_TRIP_MS_MAX + 1), sampled(node_id="c")],
    ids=["slow", "another node answered"],
)
def test_a_doubtful_sample_is_thrown_away(clocks: PeerClocks) -> None:
    assert clocks.votes("a", ("a", "b"), 200) == Votes((), 2, True)
    assert clocks.rejected_total == 1


def test_an_old_sample_does_not_vote() -> None:
    clocks = sampled()
    assert clocks.votes("a", ("a", "b"), 110 + FRESH_MS).others_ms
    assert clocks.votes("a", ("a", "b"), 111 + FRESH_MS).others_ms == ()


def test_only_voters_vote_and_former_members_are_forgotten() -> None:
    clocks = sampled()
    assert clocks.votes("a", ("a", "c"), 200) == Votes((), 2, True)
    assert clocks.votes("a", ("b", "c"), 200) == Votes((1_000_000,), 2, False)
    clocks.keep(["c"])
    assert clocks.get("b") is None
