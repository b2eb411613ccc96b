"""Plans follow what they were computed with: releases and calendars, once, whoever leads."""

from __future__ import annotations

import asyncio

from actor_rig import Rig, virtual

from cluster.actors.replanner import SECOND_LOOK_S, Replanner
from cluster.actors.scheduler import Scheduler
from cluster.actors.timekeeper import Timekeeper
from cluster.machine.commands import (
    DeleteCalendar,
    PutCalendar,
    PutSchedule,
    ReplanSchedule,
    SetReleases,
)
from cluster.machine.model import JobSpec
from cluster.plan import Plan, Trigger

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOW, OLDER = "tzdata 2026.2, croniter 7.0.0", "tzdata 2026.1, croniter 7.0.0"


async def leading(releases: str = NOW) -> Rig:
    rig = Rig()
    await lead(rig, releases)
    return rig


async def lead(rig: Rig, releases: str) -> None:
    await rig.lead(
        [
            Timekeeper(rig.raft, rig.proposer, rig.clock),
            Scheduler(rig.raft, rig.proposer, rig.clock),
            Replanner(rig.raft, rig.proposer, rig.clock, releases),
        ]
    )


def daily(**fields: object) -> Plan:
    return Plan((Trigger(cron="0 12 * * *"),), **fields)  # type: ignore[arg-type]


async def put(rig: Rig, name: str, plan: Plan, next_ms: int) -> None:
    command = PutSchedule(name, JobSpec("work"), b"", "", 0, next_ms, plan=plan)
    await rig.proposer.propose(command)


def noon_ms(rig: Rig) -> int:
    """The next one, in UTC."""
    return (rig.clock.now_ms() - DAY_MS // 2) // DAY_MS * DAY_MS + DAY_MS * 3 // 2


def next_of(rig: Rig, name: str) -> int:
    return rig.raft.state.tables.schedules[name].next_nominal_ms


def replanned(rig: Rig) -> list[str]:
    return [c.schedule_id for c in rig.log.commands() if isinstance(c, ReplanSchedule)]


@virtual
async def test_the_first_leader_says_what_it_computes_with() -> None:
    rig = await leading()
    await asyncio.sleep(1)
    assert rig.raft.state.releases == NOW


@virtual
async def test_a_leader_with_equal_releases_computes_nothing() -> None:
    rig = await leading()
    await put(rig, "s", daily(timezone="Europe/Berlin"), noon_ms(rig) + 1)  # as if rules differed
    await asyncio.sleep(1)
    await rig.resign()
    before = len(rig.log.entries)
    await lead(rig, NOW)
    await asyncio.sleep(1)
    assert replanned(rig) == []
    assert len(rig.log.entries) - before == 1  # its epoch


@virtual
async def test_another_tzdata_replans_zones_and_leaves_the_rest_alone() -> None:
    rig = await leading(OLDER)
    wrong_ms = noon_ms(rig) + 7 * HOUR_MS
    await put(rig, "zoned", daily(timezone="Europe/Berlin"), wrong_ms)
    await put(rig, "utc", daily(), wrong_ms)
    await put(rig, "right", daily(timezone="Etc/GMT"), noon_ms(rig))
    await rig.resign()
    await lead(rig, NOW)
    await asyncio.sleep(1)
    assert replanned(rig) == ["zoned"]
    assert next_of(rig, "zoned") in (noon_ms(rig) - HOUR_MS, noon_ms(rig) - 2 * HOUR_MS)
    assert next_of(rig, "utc") == wrong_ms
    assert rig.raft.state.releases == NOW


@virtual
async def test_another_croniter_replans_expressions() -> None:
    rig = await leading("tzdata 2026.2, croniter 6.0.0")
    await put(rig, "cron", daily(), noon_ms(rig) + HOUR_MS)
    every = Plan((Trigger(every_ms=HOUR_MS, anchor_ms=noon_ms(rig) % HOUR_MS + 5),))
    await put(rig, "every", every, noon_ms(rig))
    await rig.resign()
    await lead(rig, NOW)
    await asyncio.sleep(1)
    assert replanned(rig) == ["cron"]
    assert next_of(rig, "cron") == noon_ms(rig)


@virtual
async def test_a_calendar_that_changes_moves_the_schedules_that_use_it() -> None:
    rig = await leading()
    await rig.proposer.propose(PutCalendar("de", [], []))
    plan = daily(calendars=("de",), on_holiday="skip")
    await put(rig, "with", plan, noon_ms(rig))
    await put(rig, "without", daily(), noon_ms(rig) + 1)
    today = noon_ms(rig) // DAY_MS
    await rig.proposer.propose(PutCalendar("de", [today], ["feast"]))
    await asyncio.sleep(SECOND_LOOK_S + 5)
    assert replanned(rig) == ["with"]
    assert next_of(rig, "with") == noon_ms(rig) + DAY_MS
    await rig.proposer.propose(PutCalendar("de", [], []))
    await asyncio.sleep(SECOND_LOOK_S + 5)
    assert next_of(rig, "with") == noon_ms(rig)


@virtual
async def test_a_calendar_that_is_gone_is_forgotten() -> None:
    """Made again under its name, it may reach the version that plans rested on."""
    rig = await leading()
    await rig.proposer.propose(PutCalendar("de", [], []))
    await asyncio.sleep(1)
    assert rig.raft.state.releases == f"{NOW}; calendars de:1"
    await rig.proposer.propose(DeleteCalendar("de"))
    await asyncio.sleep(1)
    assert rig.raft.state.releases == NOW


@virtual
async def test_who_computed_with_the_old_days_is_found_at_the_second_look() -> None:
    rig = await leading()
    await rig.proposer.propose(PutCalendar("de", [], []))
    plan = daily(calendars=("de",), on_holiday="skip")
    await put(rig, "early", plan, noon_ms(rig))
    today = noon_ms(rig) // DAY_MS
    await rig.proposer.propose(PutCalendar("de", [today], ["feast"]))
    await asyncio.sleep(1)
    await put(rig, "late", plan, noon_ms(rig))
    await asyncio.sleep(SECOND_LOOK_S + 5)
    assert next_of(rig, "late") == noon_ms(rig) + DAY_MS


@virtual
async def test_what_a_leader_began_the_next_one_finishes() -> None:
    rig = await leading(OLDER)
    for number in range(50):
        await put(rig, f"s{number}", daily(timezone="Etc/GMT"), noon_ms(rig) + HOUR_MS)
    await rig.resign()
    await lead(rig, NOW)
    rig.log.held = True
    await asyncio.sleep(0.5)
    rig.log.lose(committed=False)
    await rig.resign()
    rig.log.held = False
    await lead(rig, NOW)
    await asyncio.sleep(3)
    assert all(next_of(rig, f"s{number}") == noon_ms(rig) for number in range(50))
    assert len(set(replanned(rig))) == 50
    assert [c for c in rig.log.commands() if isinstance(c, SetReleases)][-1].releases == NOW


@virtual
async def test_a_schedule_that_is_due_is_launched_first() -> None:
    rig = Rig()
    await rig.lead([Timekeeper(rig.raft, rig.proposer, rig.clock)])
    await rig.proposer.propose(SetReleases(OLDER))
    due_ms = rig.clock.now_ms() + 500
    await put(rig, "s", daily(timezone="Etc/GMT"), due_ms)
    await asyncio.sleep(1)
    await rig.resign()
    await lead(rig, NOW)
    await asyncio.sleep(3)
    jobs = rig.raft.state.tables.jobs.values()
    assert [job.extra.nominal_ms for job in jobs if job.extra] == [due_ms]
    assert next_of(rig, "s") == noon_ms(rig)
    assert rig.raft.state.releases == NOW
