"""What the API may ask about the future and the past, while the loop goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from actor_rig import Rig, virtual

from cluster.actors.planner import Planner
from cluster.machine.commands import PutCalendar
from cluster.plan import Missed, Plan, Span, Trigger
from cluster.policy.timing import Occurrence, Omitted, TimingError

START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
MINUTE_MS, DAY_MS = 60_000, 86_400_000


def minutely(**fields: Any) -> Plan:
    return Plan((Trigger(cron="* * * * *"),), **fields)


def planner() -> Planner:
    rig = Rig()
    return Planner(rig.raft, rig.clock)


def minutes(*numbers: int) -> list[int]:
    return [START_MS + number * MINUTE_MS for number in numbers]


@virtual
async def test_the_first_occurrence_skips_what_the_plan_omits() -> None:
    dark = Span(START_MS, START_MS + 10 * MINUTE_MS)
    _, plain = await planner().plan_put(minutely(), "s", START_MS)
    _, first = await planner().plan_put(minutely(blackouts=(dark,)), "s", START_MS)
    assert plain is not None and plain.nominal_ms == minutes(1)[0]
    assert first is not None and first.nominal_ms == minutes(10)[0]


@virtual
async def test_a_plan_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(TimingError):
        await planner().plan_put(Plan((Trigger(cron="61 * * * *"),)), "s", START_MS)


@virtual
async def test_the_calendars_are_those_of_the_state() -> None:
    rig = Rig()
    await rig.lead()
    await rig.proposer.propose(PutCalendar("de", [START_MS // DAY_MS], ["New Year"]))
    plan = minutely(calendars=("de",), on_holiday="skip")
    _, first = await Planner(rig.raft, rig.clock).plan_put(plan, "s", START_MS)
    assert first is not None and first.nominal_ms == START_MS + DAY_MS


@virtual
async def test_a_preview_lists_what_is_omitted_if_asked() -> None:
    plan = minutely(blackouts=(Span(*minutes(2, 4)),), end_ms=minutes(6)[0])
    found, is_all = await planner().preview(plan, "s", START_MS, 10)
    assert [what.nominal_ms for what in found] == minutes(1, 4, 5)
    assert is_all
    found, is_all = await planner().preview(plan, "s", START_MS, 3, omitted=True)
    assert [what.nominal_ms for what in found] == minutes(1, 2, 3)
    assert [type(what) for what in found] == [Occurrence, Omitted, Omitted]
    assert not is_all


@virtual
async def test_a_range_begins_at_its_first_moment_and_ends_before_its_last() -> None:
    found = await planner().nominals(minutely(), "s", *minutes(1, 4), 10)
    assert found == (minutes(1, 2, 3), True)
    found = await planner().nominals(minutely(), "s", *minutes(1, 4), 3)
    assert found == (minutes(1, 2, 3), True)
    found = await planner().nominals(minutely(), "s", *minutes(1, 4), 2)
    assert found == (minutes(1, 2), False)


@virtual
async def test_a_pause_is_written_down_and_over() -> None:
    dark = Span(*minutes(3, 5))
    plan = minutely(blackouts=(dark,), catchup="all")
    decision = await planner().resume(plan, "s", minutes(1)[0], minutes(7)[0])
    assert (decision.launches, decision.late) == ([], [])
    assert decision.missed == [
        Missed("paused", *minutes(2, 2)),
        Missed("blackout", *minutes(3, 4), 2),
        Missed("paused", *minutes(5, 7), 3),
    ]
    assert decision.next is not None and decision.next.nominal_ms == minutes(8)[0]


@virtual
async def test_others_run_while_thousands_are_listed() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    found, _ = await planner().nominals(minutely(), "s", START_MS, START_MS + DAY_MS, 10_000)
    task.cancel()
    assert len(found) == 1_440
    assert turns > 10
