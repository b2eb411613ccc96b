"""Launching schedules: every occurrence once, late ones too, and no launch is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from actor_rig import Rig, virtual

from cluster.actors import proposer as proposer_module
from cluster.actors import scheduler as scheduler_module
from cluster.actors.scheduler import Scheduler
from cluster.actors.timekeeper import Timekeeper
from cluster.machine.commands import FireSchedule, PutSchedule, decode_batch
from cluster.machine.model import JobSpec
from cluster.plan import Missed, Plan, Span, Trigger
from cluster.policy.timing import TimingError

HOUR_MS = 3_600_000


async def leading() -> Rig:
    rig = Rig()
    await rig.lead(duties(rig))
    return rig


def duties(rig: Rig) -> list[Timekeeper | Scheduler]:
    return [
        Timekeeper(rig.raft, rig.proposer, rig.clock),
        Scheduler(rig.raft, rig.proposer, rig.clock),
    ]


async def put(
    rig: Rig, first_ms: int, every_ms: int = 60_000, name: str = "s", **fields: Any
) -> None:
    plan = Plan((Trigger(every_ms=every_ms, anchor_ms=first_ms % every_ms),), **fields)
    spec = JobSpec("work")
    command = PutSchedule(name, spec, b"null", "", 0, first_ms, plan=plan, next_nominal_ms=first_ms)
    await rig.proposer.propose(command)


def launches(rig: Rig) -> list[FireSchedule]:
    return [command for command in rig.log.commands() if isinstance(command, FireSchedule)]


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
async def test_makes_up_for_what_an_outage_missed() -> None:
    rig = await leading()
    first_ms = rig.clock.now_ms() + 500
    await put(rig, first_ms, catchup="all", catchup_max=3)
    rig.clock.jump(10 * 60_000)
    await asyncio.sleep(2)
    on_time, late, bound = [], [], []
    for command in launches(rig):
        on_time += command.launches or []
        late += command.late
        bound += command.missed
    assert on_time == [first_ms + 600_000]
    assert late == [first_ms + n * 60_000 for n in (7, 8, 9)]
    assert bound == [Missed("bound", first_ms, first_ms + 6 * 60_000, 7)]
    assert sorted(fired(rig)) == [*late, *on_time]


@virtual
async def test_records_what_it_does_not_make_up_for() -> None:
    rig = await leading()
    first_ms = rig.clock.now_ms() + 500
    await put(rig, first_ms, catchup="skip")
    rig.clock.jump(10 * 60_000)
    await asyncio.sleep(2)
    row = rig.raft.state.tables.schedules["s"]
    assert fired(rig) == [first_ms + 600_000]
    assert row.skipped_count == 10


@virtual
async def test_omitted_occurrences_are_recorded_once() -> None:
    rig = await leading()
    first_ms = rig.clock.now_ms() + 500
    dark = Span(first_ms + 1, first_ms + 150_000)
    await put(rig, first_ms, blackouts=(dark,))
    await asyncio.sleep(400)
    assert fired(rig) == [first_ms + n * 60_000 for n in (0, 3, 4, 5, 6)]
    missed = [each for command in launches(rig) for each in command.missed]
    assert missed == [Missed("blackout", first_ms + 60_000, first_ms + 120_000, 2)]


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
    assert len(launches(rig)) == 200
    assert len(rig.log.entries) - before < 20


@virtual
async def test_a_burst_is_launched_in_portions() -> None:
    rig = await leading()
    first_ms = rig.clock.now_ms() + 60_000
    for number in range(1_500):
        await put(rig, first_ms, name=f"s{number}")
    await asyncio.sleep(70)
    assert len(launches(rig)) == 1_500
    batches = [decode_batch(entry).commands for entry in rig.log.entries]
    portions = [sum(isinstance(c, FireSchedule) for c in commands) for commands in batches]
    assert 1 < max(portions) <= scheduler_module.IN_FLIGHT_MAX


@virtual
async def test_a_portion_that_is_refused_half_way_is_launched_once() -> None:
    """Its commands went into two entries, and the answer of the second one never came."""
    rig = await leading()
    first_ms = rig.clock.now_ms() + 60_000
    for number in range(30):
        await put(rig, first_ms, name=f"s{number}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposer_module, "BATCH_COMMANDS_MAX", 20)
        rig.log.held = True
        await asyncio.sleep((first_ms - rig.clock.now_ms() + 1) / 1000)
        rig.log.commit()  # the tick; all are decided now
        await asyncio.sleep(0.05)
        rig.log.commit()
        await asyncio.sleep(0.05)
        assert [len(decode_batch(entry).commands) for entry, _ in rig.log.pending] == [10]
        rig.log.lose(committed=False)
        rig.log.release()
        await asyncio.sleep(2)
    assert [fired(rig, f"s{number}") for number in range(30)] == [[first_ms]] * 30


@virtual
async def test_who_missed_a_month_of_minutes_does_not_keep_others_waiting() -> None:
    rig = await leading()
    month_ms = 30 * 24 * HOUR_MS
    next_ms = rig.clock.now_ms() // 60_000 * 60_000 + 60_000
    minutely, once = Trigger(cron="* * * * *"), Trigger(at_ms=(next_ms + month_ms,))
    for name, trigger, first_ms in (
        ("long", minutely, next_ms),
        ("short", once, next_ms + month_ms),
    ):
        spec = JobSpec("work")
        command = PutSchedule(name, spec, b"", "", 0, first_ms, plan=Plan((trigger,)))
        await rig.proposer.propose(command)
    rig.clock.jump(month_ms + 60_000)
    await asyncio.sleep(5)
    order = [command.schedule_id for command in launches(rig)]
    assert order[0] == "short" and "long" in order
    long = next(command for command in launches(rig) if command.schedule_id == "long")
    assert sum(each.count for each in long.missed) == 30 * 1440


@virtual
async def test_what_changes_while_it_is_decided_is_decided_anew() -> None:
    rig = await leading()
    first_ms = rig.clock.now_ms() + 500
    await put(rig, first_ms)
    rig.log.held = True
    await asyncio.sleep(0.6)
    change = PutSchedule(
        "s", JobSpec("other"), b"", "", 0, first_ms, True, next_nominal_ms=first_ms,
        plan=rig.raft.state.tables.schedules["s"].plan,
    )  # fmt: skip
    future = rig.proposer.propose(change)
    rig.log.release()
    await future
    await asyncio.sleep(1)
    assert fired(rig) == [first_ms]
    names = [job.kind.spec.name for job in rig.raft.state.tables.jobs.values()]
    assert names == ["other"]


@virtual
async def test_a_clock_that_goes_back_before_the_entry_is_waited_for() -> None:
    """The decision counts what the clock said; the entry then says an earlier time."""
    rig = await leading()
    first_ms = rig.clock.now_ms() + 500
    await put(rig, first_ms, every_ms=1_000)
    original = rig.proposer.propose_all

    def propose_all(commands: Any) -> Any:
        if isinstance(commands[0], FireSchedule) and not launches(rig):
            rig.clock.jump(-2_000)
        return original(commands)

    rig.clock.jump(3_000)
    rig.proposer.propose_all = propose_all  # type: ignore[method-assign]
    await asyncio.sleep(10)
    assert fired(rig) == [first_ms + n * 1_000 for n in range(len(fired(rig)))]
    assert len(fired(rig)) >= 8


@virtual
async def test_a_plan_that_breaks_ends_its_schedule_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterator[None]:
        yield
        raise TimingError("no fire after that")

    rig = await leading()
    first_ms = rig.clock.now_ms() + 500
    await put(rig, first_ms)
    monkeypatch.setattr(scheduler_module, "decide", broken)
    await asyncio.sleep(5)
    assert fired(rig) == [first_ms]
    assert rig.raft.state.tables.schedules["s"].ended.startswith("broken: ")
    assert rig.given_up == []
    assert rig.duties.restarts_total == 0
