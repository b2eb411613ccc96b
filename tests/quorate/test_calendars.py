"""Calendars through the client and the command line, against a real node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta

import pytest
from test_cli import run

from quorate import Client, Conflict, NotFound, ValidationError
from quorate.testing import local_node


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with local_node() as where:
        yield where


async def test_a_client_manages_calendars(url: str) -> None:
    async with Client(url) as client:
        made = await client.calendars.create("xmas", {date(2026, 12, 25): "Christmas"})
        assert (made.version, made.days[0].date, made.days[0].label) == (
            1,
            date(2026, 12, 25),
            "Christmas",
        )
        with pytest.raises(Conflict):
            await client.calendars.create("xmas")
        changed = await client.calendars.change(
            "xmas", add=["2026-12-24", date(2026, 12, 26)], remove=["2026-12-25"]
        )
        assert [day.date.day for day in changed.days] == [24, 26]
        taken = await client.calendars.import_holidays(
            "xmas", range(2027, 2029), country="DE", subdivision="BY"
        )
        assert date(2028, 1, 6) in [day.date for day in taken.days]
        with pytest.raises(ValidationError, match="did you mean"):
            await client.calendars.import_holidays("xmas", [2027], country="DEE")
        put = await client.calendars.put("xmas", ["2026-12-31"], description="the last day")
        assert (len(put.days), put.description) == (1, "the last day")
        [row] = await client.calendars.list()
        assert (row.name, row.day_count, row.first) == ("xmas", 1, date(2026, 12, 31))
        await client.calendars.delete("xmas")
        with pytest.raises(NotFound):
            await client.calendars.get("xmas")
        with pytest.raises(TypeError):
            await client.calendars.put("x", "2026-12-31")


async def test_the_command_line_does_it_too(url: str) -> None:
    env = {"QUORATE_NODES": url}
    made = await run(None, "calendars", "create", "c", "2026-12-25=Christmas", "2026-12-26", **env)
    assert (made.code, made.json[0]["version"]) == (0, 1)
    more = await run(None, "calendars", "add", "c", "2026-12-24=Eve", **env)
    assert [day["label"] for day in more.json[0]["days"]] == ["Eve", "Christmas", ""]
    less = await run(None, "calendars", "remove", "c", "2026-12-26", **env)
    assert len(less.json[0]["days"]) == 2
    years = ("--years", "2027-2028,2030")
    taken = await run(None, "calendars", "import", "c", "--exchange", "XNYS", *years, **env)
    assert taken.json[0]["imports"][0]["years"] == [2027, 2028, 2030]
    listed = await run(None, "calendars", "list", **env)
    assert (listed.json[0]["first"], listed.json[0]["last"]) == ("2026-12-24", "2030-12-25")
    shown = await run(None, "calendars", "show", "c", **env)
    assert shown.json[0]["name"] == "c"
    assert (await run(None, "calendars", "delete", "c", **env)).code == 0
    gone = await run(None, "calendars", "show", "c", **env)
    assert (gone.code, "no calendar is called" in gone.err) == (1, True)
    vague = await run(None, "calendars", "import", "c", "--country", "DE", **env)
    assert (vague.code, "--years" in vague.err) == (2, True)
    wrong = await run(None, "calendars", "create", "c", "2026-02-30", **env)
    assert (wrong.code, "'2026-02-30' is no date" in wrong.err) == (2, True)


async def test_a_schedule_follows_its_calendar(url: str) -> None:
    async with Client(url) as client:
        await client.calendars.create("closed")
        made = await client.transport.json(
            "POST",
            "/v1/schedules",
            {
                "id": "daily",
                "name": "simulate",
                "schedule": "0 6 * * *",
                "calendars": ["closed"],
                "on_holiday": "skip",
            },
        )
        first = datetime.fromisoformat(made["next_run"])
        await client.calendars.change("closed", add=[first.date()])
        async with asyncio.timeout(60):
            while (await client.schedules.get("daily")).next_run == first:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await client.schedules.get("daily")).next_run == first + timedelta(days=1)
        timeline = await client.transport.json("GET", "/v1/schedules/daily/timeline")
        assert [event["kind"] for event in timeline["events"]] == ["replanned"]
        with pytest.raises(Conflict, match="daily"):
            await client.calendars.delete("closed")
        await client.schedules.delete("daily")
        await client.calendars.delete("closed")
