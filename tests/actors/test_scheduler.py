"""Launching schedules: every occurrence once, late ones too, and no launch is forgotten."""

from __future__ import annotations

import asyncio

import pytest
from actor_rig import Rig, virtual

from cluster.actors import scheduler as scheduler_module
from cluster.actors.scheduler import Scheduler
from cluster.actors.timekeeper import Timekeeper
from cluster.machine.commands import FireSchedule, PutSchedule
from cluster.machine.model import JobSpec
from cluster.policy.cron import CronError

HOUR_MS = 3_600_000


async def leading(catch_up_ms: int = 24 * HOUR_MS) -> Rig:
    rig = Rig()
    await rig.lead(duties(rig, catch_up_ms))
    return rig


def duties(rig: Rig, catch_up_ms: int = 24 * HOUR_MS) -> list[Timekeeper | Scheduler]:
    return [
        Timekeeper(rig.raft, rig.proposer, rig.clock),
        Scheduler(rig.raft, rig.proposer, rig.clock, catch_up_ms),
    ]


async def put(rig: Rig, first_ms: int, every_ms: int = 60_000, name: str = "s") -> None:
    spec = JobSpec("work")
    await rig.proposer.propose(PutSchedule(name, spec, b"null", "", every_ms, first_ms))


def fired(rig: Rig, name: str = "s") -> list[int]:
    jobs = rig.raft.state.tables.jobs.values()
    return [j.extra.nominal_ms for j in jobs if j.extra and j.extra.schedule_id == name]


@virtual
async def test_launches_each_occurrence_once() -> None:
    rig = await leading()
    first_ms = rig.clock.now_ms() + 500
    await put(rig, first_ms)
    await asyncio.sleep(150)
    assert fired(rig) == [first_ms, first_ms + 60_000, first_ms + 120_000]


@virtual
async def test_catches_up_one_by_one_after_an_outage() -> None:
    rig = await leading()
    first_ms = rig.clock.now_ms() + 500
    await put(rig, first_ms)
    rig.clock.jump(10 * 60_000)
    await asyncio.sleep(2)
    assert fired(rig) == [first_ms + n * 60_000 for n in range(11)]


@virtual
async def test_leaves_out_what_is_older_than_the_window() -> None:
    rig = await leading(catch_up_ms=120_000)
    first_ms = rig.clock.now_ms() + 500
    await put(rig, first_ms)
    rig.clock.jump(10 * 60_000)
    await asyncio.sleep(2)
    row = rig.raft.state.tables.schedules["s"]
    assert fired(rig) == [first_ms, *(first_ms + n * 60_000 for n in (9, 10))]
    assert row.skipped_count == 8


@virtual
async def test_a_new_leader_launches_what_its_predecessor_left_due() -> None:
    rig = Rig()
    await rig.lead([Timekeeper(rig.raft, rig.proposer, rig.clock)])
    first_ms = rig.clock.now_ms() + 500
    await put(rig, first_ms)
    await asyncio.sleep(1)
    assert fired(rig) == []
    await rig.resign()
    await rig.lead(duties(rig))
    await asyncio.sleep(1)
    assert fired(rig) == [first_ms]


@virtual
async def test_a_launch_that_was_refused_is_tried_again() -> None:
    rig = await leading()
    first_ms = rig.clock.now_ms() + 500
    await put(rig, first_ms)
    rig.log.held = True
    await asyncio.sleep(0.6)
    rig.log.commit()  # the tick; the launch is proposed now
    rig.log.refusing = True
    await asyncio.sleep(0.5)
    assert fired(rig) == []
    rig.log.refusing = rig.log.held = False
    await asyncio.sleep(0.5)
    assert fired(rig) == [first_ms]


@virtual
async def test_a_launch_whose_answer_was_lost_is_not_made_twice() -> None:
    rig = await leading()
    first_ms = rig.clock.now_ms() + 500
    await put(rig, first_ms)
    rig.log.held = True
    await asyncio.sleep(0.6)
    rig.log.commit()
    await asyncio.sleep(0.01)
    rig.log.lose(committed=True)
    rig.log.held = False
    await asyncio.sleep(2)
    assert fired(rig) == [first_ms]


@virtual
async def test_due_schedules_of_one_moment_share_entries() -> None:
    rig = await leading()
    first_ms = rig.clock.now_ms() + 500
    for number in range(200):
        await put(rig, first_ms, name=f"s{number}")
    before = len(rig.log.entries)
    await asyncio.sleep(1)
    launches = [c for c in rig.log.commands() if isinstance(c, FireSchedule)]
    assert len(launches) == 200
    assert len(rig.log.entries) - before < 20


@virtual
async def test_an_expression_without_a_next_time_ends_its_schedule_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object) -> tuple[int, int]:
        raise CronError("no fire after that")

    rig = await leading()
    first_ms = rig.clock.now_ms() + 500
    await put(rig, first_ms)
    monkeypatch.setattr(scheduler_module, "next_occurrence", never)
    await asyncio.sleep(5)
    assert fired(rig) == [first_ms]
    assert rig.given_up == []
    assert rig.duties.restarts_total == 0
