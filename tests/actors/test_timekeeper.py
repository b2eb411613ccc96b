"""Replicated time: an idle cluster writes nothing, timers fire on time, clocks may be wrong."""

from __future__ import annotations

import asyncio

from actor_rig import LATENCY_S, Rig, virtual

from cluster.actors.timekeeper import Timekeeper
from cluster.machine.commands import decode_batch
from cluster.machine.timers import KEYS, TimerGroup

HOUR_MS = 3_600_000


async def leading() -> Rig:
    rig = Rig()
    await rig.lead([Timekeeper(rig.raft, rig.proposer, rig.clock)])
    return rig


@virtual
async def test_an_idle_cluster_proposes_nothing() -> None:
    rig = await leading()
    before = len(rig.log.entries)
    await asyncio.sleep(3_600)
    assert len(rig.log.entries) == before


@virtual
async def test_wakes_exactly_when_the_earliest_timer_is_due() -> None:
    rig = await leading()
    due_ms = rig.clock.now_ms() + 5_000
    await rig.submit(run_at_ms=due_ms)
    await rig.submit(run_at_ms=due_ms + 60_000)
    before = len(rig.log.entries)
    await asyncio.sleep(10)
    assert len(rig.log.entries) == before + 1
    assert decode_batch(rig.log.entries[-1]).now_ms == due_ms


@virtual
async def test_an_earlier_timer_brings_the_wake_up_forward() -> None:
    rig = await leading()
    await rig.submit(run_at_ms=rig.clock.now_ms() + 60_000)
    early_ms = rig.clock.now_ms() + 1_000
    await rig.submit(run_at_ms=early_ms)
    await asyncio.sleep(2)
    assert rig.raft.state.now_ms == early_ms


@virtual
async def test_a_clock_that_steps_back_neither_spins_nor_takes_time_back() -> None:
    rig = await leading()
    await rig.submit(run_at_ms=rig.clock.now_ms() + 1_000)
    before_ms = rig.raft.state.now_ms
    rig.clock.jump(-HOUR_MS)
    await asyncio.sleep(30)  # a spinning loop would not get here
    assert rig.raft.state.now_ms == before_ms
    await asyncio.sleep(3_600)
    assert rig.raft.state.now_ms >= before_ms + 1_000


@virtual
async def test_what_replicated_time_has_passed_is_due_whatever_the_clock_says() -> None:
    rig = Rig()
    timekeeper = Timekeeper(rig.raft, rig.proposer, rig.clock)
    await rig.lead([timekeeper])
    rig.clock.jump(HOUR_MS)
    await rig.submit()
    rig.clock.jump(-HOUR_MS)
    # Behind replicated time and ahead of the clock, like a schedule that is catching up.
    rig.raft.state.timers.wheel.insert(rig.clock.now_ms() + 1_000, _group())
    timekeeper.tell("look")
    await asyncio.sleep(0.1)
    assert rig.raft.state.timers.wheel.next_due_ms() is None


@virtual
async def test_a_clock_that_steps_forward_is_noticed_within_a_second() -> None:
    rig = await leading()
    job_ms = rig.clock.now_ms() + HOUR_MS
    await rig.submit(run_at_ms=job_ms)
    rig.clock.jump(HOUR_MS)
    await asyncio.sleep(1.1)
    assert rig.raft.state.now_ms >= job_ms


@virtual
async def test_a_tick_that_is_refused_or_lost_is_repeated() -> None:
    rig = await leading()
    await rig.submit(run_at_ms=rig.clock.now_ms() + 1_000)
    rig.log.refusing = True
    await asyncio.sleep(2)
    assert rig.raft.state.tables.queues["default"].scheduled == 1
    rig.log.refusing = False
    await asyncio.sleep(0.2 + 2 * LATENCY_S)
    assert rig.raft.state.tables.queues["default"].ready == 1


def _group() -> object:
    return TimerGroup(KEYS, [""], 1)
