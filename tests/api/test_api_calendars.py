"""/v1/calendars: named days, how they are changed and imported, and what is refused."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec
import pytest
from api_fakes import Api, FakeNode

from cluster.machine.commands import PutCalendar, PutSchedule
from cluster.machine.model import JobSpec
from cluster.plan import Plan, Trigger

EVE, DAY, BOXING = "2026-12-24", "2026-12-25", "2026-12-26"


async def create(api: Api, name: str = "xmas", **fields: Any) -> Any:
    body = {"name": name, "days": [{"date": DAY, "label": "Christmas"}, BOXING], **fields}
    answer = await api("POST", "/v1/calendars", body)
    assert answer.status == 201, answer
    return answer.json


async def use(node: FakeNode, name: str) -> None:
    """A schedule that names the calendar."""
    plan = Plan((Trigger(cron="0 6 * * *"),), calendars=(name,), on_holiday="skip")
    due_ms = node.clock.now_ms() + 3_600_000
    command = PutSchedule(
        schedule_id="daily",
        spec=JobSpec("t"),
        payload=b"null",
        cron="",
        every_ms=0,
        next_fire_ms=due_ms,
        plan=plan,
        next_nominal_ms=due_ms,
    )
    await node.proposer.propose(command)


def dates(answer: Any) -> list[str]:
    return [day["date"] for day in answer["days"]]


async def test_a_calendar_is_created_and_shown(api: Api) -> None:
    answer = await api(
        "POST",
        "/v1/calendars",
        {"name": "xmas", "description": "closed", "days": [BOXING, {"date": DAY, "label": "C"}]},
    )
    assert (answer.status, answer.headers["Location"]) == (201, "/v1/calendars/xmas")
    assert answer.json["days"] == [{"date": DAY, "label": "C"}, {"date": BOXING, "label": ""}]
    assert (answer.json["version"], answer.json["description"]) == (1, "closed")
    assert await api.get("/v1/calendars/xmas") == answer.json
    [row] = (await api.get("/v1/calendars"))["items"]
    assert (row["name"], row["day_count"], row["first"], row["last"]) == ("xmas", 2, DAY, BOXING)


async def test_a_taken_name_is_refused(api: Api) -> None:
    await create(api)
    answer = await api("POST", "/v1/calendars", {"name": "xmas"})
    assert (answer.status, answer.code, answer.pointer) == (409, "conflict", "/name")


async def test_days_come_and_go(api: Api) -> None:
    await create(api)
    change = {"add": [{"date": EVE, "label": "Eve"}, {"date": DAY, "label": "X"}]}
    answer = await api("PATCH", "/v1/calendars/xmas", {**change, "remove": [BOXING, "2030-01-01"]})
    assert answer.status == 200
    assert answer.json["days"] == [{"date": EVE, "label": "Eve"}, {"date": DAY, "label": "X"}]
    assert answer.json["version"] == 2
    answer = await api("PATCH", "/v1/calendars/xmas", {"description": "only the name of it"})
    assert dates(answer.json) == [EVE, DAY]
    assert answer.json["description"] == "only the name of it"


async def test_put_creates_and_sets_everything(api: Api) -> None:
    first = await api("PUT", "/v1/calendars/new", {"days": [EVE]})
    assert (first.status, first.headers["Location"]) == (201, "/v1/calendars/new")
    again = await api("PUT", "/v1/calendars/new", {"days": [DAY], "description": "d"})
    assert (again.status, dates(again.json), again.json["version"]) == (200, [DAY], 2)
    refused = await api("PUT", "/v1/calendars/no%20name", {"days": []})
    assert (refused.status, refused.code) == (422, "validation")


async def test_a_change_that_meets_another_one_loses_nothing(api: Api, node: FakeNode) -> None:
    await create(api)
    node.raft.held = []
    first = asyncio.create_task(api("PATCH", "/v1/calendars/xmas", {"add": [EVE]}))
    second = asyncio.create_task(api("PATCH", "/v1/calendars/xmas", {"add": ["2027-01-01"]}))
    async with asyncio.timeout(60):
        while len(node.raft.held) + node.proposer.queued < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
    node.raft.release_held()
    assert (await first).status == (await second).status == 200
    shown = await api.get("/v1/calendars/xmas")
    assert dates(shown) == [EVE, DAY, BOXING, "2027-01-01"]
    assert shown["version"] == 3


async def test_a_calendar_that_a_schedule_names_stays(api: Api, node: FakeNode) -> None:
    await create(api)
    await use(node, "xmas")
    assert (await api.get("/v1/calendars/xmas"))["used_by"] == ["daily"]
    answer = await api("DELETE", "/v1/calendars/xmas")
    assert (answer.status, answer.code) == (409, "in_use")
    assert "daily" in answer.json["detail"]
    await create(api, "other")
    assert (await api("DELETE", "/v1/calendars/other")).status == 204
    assert (await api("DELETE", "/v1/calendars/other")).code == "unknown_calendar"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nope"), ("PATCH", "/nope"), ("DELETE", "/nope")],
)
async def test_an_unknown_calendar_is_told(api: Api, method: str, path: str) -> None:
    answer = await api(method, "/v1/calendars" + path, {} if method == "PATCH" else None)
    assert (answer.status, answer.code) == (404, "unknown_calendar")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"name": "a b"}, "/name"),
        ({"name": ""}, "/name"),
        ({"days": ["2026-02-30"]}, "/days/0"),
        ({"days": [DAY, {"date": "1969-12-31"}]}, "/days/1"),
        ({"days": [DAY, EVE, {"date": DAY, "label": "again"}]}, "/days/2"),
        ({"days": [{"date": DAY, "label": "x" * 129}]}, "/days/0/label"),
        ({"days": [{"day": DAY}]}, "/days/0/day"),
        ({"weeks": []}, "/weeks"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    api: Api, fields: dict[str, Any], pointer: str
) -> None:
    answer = await api("POST", "/v1/calendars", {"name": "x", **fields})
    assert (answer.status, answer.code, answer.pointer) == (422, "validation", pointer)


async def test_a_day_cannot_be_added_and_removed_at_once(api: Api) -> None:
    await create(api)
    answer = await api("PATCH", "/v1/calendars/xmas", {"add": [DAY], "remove": [DAY]})
    assert (answer.status, answer.pointer) == (422, "/remove")


# Import.


async def take(api: Api, **fields: Any) -> Any:
    return await api("POST", "/v1/calendars/import", {"name": "de", "years": [2026], **fields})


async def test_holidays_of_a_region_become_dates_with_labels(api: Api) -> None:
    answer = await take(api, country="DE", subdivision="BY", years=[2026, 2027])
    assert answer.status == 200
    assert {"2026-01-06", "2027-01-06"} < set(dates(answer.json))  # Epiphany, not in all of Germany
    assert all(day["label"] for day in answer.json["days"])
    [record] = answer.json["imports"]
    assert (record["country"], record["subdivision"]) == ("DE", "BY")
    assert record["release"].startswith("holidays ")
    country = await take(api, name="all", country="DE")
    assert "2026-01-06" not in dates(country.json)


async def test_an_exchange_has_its_own_days(api: Api) -> None:
    answer = await take(api, exchange="XNYS")
    assert "2026-04-03" in dates(answer.json)  # Good Friday


async def test_a_second_import_adds_and_edits_survive(api: Api) -> None:
    await take(api, country="DE")
    change = {"add": [{"date": "2026-12-24", "label": "Eve"}], "remove": ["2026-05-01"]}
    await api("PATCH", "/v1/calendars/de", change)
    answer = await take(api, country="DE", years=[2027])
    assert {"2026-12-24", "2027-05-01"} <= set(dates(answer.json))
    assert "2026-05-01" not in dates(answer.json)
    assert [record["years"] for record in answer.json["imports"]] == [[2026], [2027]]
    replaced = await take(api, country="DE", years=[2027], replace=True)
    assert dates(replaced.json)[0] == "2027-01-01"
    assert len(replaced.json["imports"]) == 1


@pytest.mark.parametrize(
    ("fields", "pointer", "hint"),
    [
        ({"country": "DEE"}, "/country", "DE"),
        ({"country": "??"}, "/country", "ISO code"),
        ({"country": "DE", "subdivision": "BAY"}, "/subdivision", "BY"),
        ({"country": "DE", "subdivision": "X9"}, "/subdivision", "DE has"),
        ({"exchange": "NYS"}, "/exchange", "XNYS"),
        ({"exchange": "XNYS", "country": "US"}, "/exchange", "either"),
        ({}, "/country", "DE"),
        ({"country": "DE", "years": []}, "/years", ""),
        ({"country": "DE", "years": [1900]}, "/years/0", "1970"),
        ({"country": "DE", "name": "?"}, "/name", ""),
    ],
)
async def test_an_import_names_the_field_that_is_wrong(
    api: Api, fields: dict[str, Any], pointer: str, hint: str
) -> None:
    answer = await take(api, **fields)
    assert (answer.status, answer.code, answer.pointer) == (422, "validation", pointer)
    assert hint in answer.json["detail"]


async def test_without_the_package_the_answer_says_what_to_install(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "holidays", None)
    answer = await take(api, country="DE")
    assert (answer.status, answer.code) == (501, "import_unavailable")
    assert "quorate[calendars]" in answer.json["detail"]


async def test_the_log_holds_dates_and_no_rule(api: Api, node: FakeNode) -> None:
    await take(api, country="DE")
    row = node.raft.state.tables.calendars["de"]
    command = PutCalendar("de", list(row.days), list(row.labels), source=row.source)
    assert len(msgspec.msgpack.encode(command)) < 2_000
    assert row.days[0] == 20_454  # 2026-01-01
