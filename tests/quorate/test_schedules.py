"""Schedules from Python: what goes over the wire, and what comes back as objects."""

from __future__ import annotations

import json
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from fake_cluster import FakeCluster

from quorate import Conflict, NotFound, Scheduler, SyncClient, TaskDefinitionError

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)


def sent(fake: FakeCluster, method: str) -> Any:
    """The body of the last request of this method."""
    return json.loads([body for verb, _, body in fake.requests if verb == method][-1])


async def test_every_option_reaches_the_wire(fake: FakeCluster, app: Scheduler) -> None:
    await app.client.schedules.create(
        "report",
        "30 2 * * *",
        id="nightly",
        payload={"a": 1},
        except_=["0 0 1 1 *", {"at": [NOON]}],
        timezone="Europe/Berlin",
        dst={"gap": "skip"},
        calendars=["de"],
        on_holiday="next",
        windows=[("22:00", time(6)), {"from": "12:00", "to": "13:00", "weekdays": ["mon"]}],
        outside_window="skip",
        blackouts=[(NOON, NOON + timedelta(days=1)), (time(1), time(2))],
        start_at=NOON,
        end_at="2028-01-01T00:00:00Z",
        max_executions=3,
        jitter="90s",
        overlap="buffer_one",
        catchup="all",
        catchup_window=timedelta(hours=1),
        catchup_max_runs=7,
        paused=True,
        note="not yet",
        queue="q",
        timeout="5m",
        tags=["x"],
    )
    assert sent(fake, "POST") == {
        "name": "report",
        "schedule": "30 2 * * *",
        "id": "nightly",
        "payload": {"a": 1},
        "except": [{"schedule": "0 0 1 1 *"}, {"at": ["2027-01-01T12:00:00.000Z"]}],
        "timezone": "Europe/Berlin",
        "dst": {"gap": "skip"},
        "calendars": ["de"],
        "on_holiday": "next",
        "windows": [
            {"from": "22:00", "to": "06:00:00"},
            {"from": "12:00", "to": "13:00", "weekdays": ["mon"]},
        ],
        "outside_window": "skip",
        "blackouts": [
            {"from": "2027-01-01T12:00:00.000Z", "to": "2027-01-02T12:00:00.000Z"},
            {"from": "01:00:00", "to": "02:00:00"},
        ],
        "start_at": "2027-01-01T12:00:00.000Z",
        "end_at": "2028-01-01T00:00:00.000Z",
        "max_executions": 3,
        "jitter_seconds": 90.0,
        "overlap": "buffer_one",
        "catchup": "all",
        "catchup_window_seconds": 3600.0,
        "catchup_max_runs": 7,
        "paused": True,
        "note": "not yet",
        "queue": "q",
        "timeout_seconds": 300.0,
        "tags": ["x"],
    }


@pytest.mark.parametrize(
    ("when", "body"),
    [
        ({"every": "5m"}, {"every_seconds": 300.0}),
        ({"every_seconds": 5, "anchor": NOON},
         {"every_seconds": 5, "anchor": "2027-01-01T12:00:00.000Z"}),
        ({"at": NOON}, {"at": ["2027-01-01T12:00:00.000Z"]}),
        ({"any_of": ["@daily", {"every": 60}], "windows": "off_peak"},
         {"any_of": [{"schedule": "@daily"}, {"every_seconds": 60.0}], "windows": "off_peak"}),
    ],
)  # fmt: skip
async def test_triggers_reach_the_wire(
    when: dict[str, Any], body: dict[str, Any], fake: FakeCluster, app: Scheduler
) -> None:
    await app.client.schedules.create("t", **when)
    assert sent(fake, "POST") == {"name": "t", **body}


async def test_what_makes_no_sense_is_refused_before_it_is_sent(app: Scheduler) -> None:
    schedules = app.client.schedules
    with pytest.raises(ValueError, match="exactly one"):
        await schedules.create("t")
    with pytest.raises(ValueError, match="exactly one"):
        await schedules.put("x", "t", "@daily", every=5)
    with pytest.raises(TypeError, match="unknown job option 'timezome'"):
        await schedules.create("t", "@daily", timezome="UTC")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="several names"):
        await schedules.create("t", "@daily", calendars="de")
    with pytest.raises(TypeError, match="several triggers"):
        await schedules.create("t", any_of="@daily")
    with pytest.raises(ValueError, match="needs a zone"):
        await schedules.create("t", at=datetime(2027, 1, 1))


async def test_put_and_change_tell_what_they_did(fake: FakeCluster, app: Scheduler) -> None:
    schedules = app.client.schedules
    made = await schedules.put("x", "t", "@daily", queue="q")
    again = await schedules.put("x", "t", "@daily", queue="q")
    assert (made.outcome, again.outcome, again.version) == ("created", "unchanged", 1)
    changed = await schedules.change("x", queue=None, jitter="1m", windows=None)
    assert sent(fake, "PATCH") == {"queue": None, "jitter_seconds": 60.0, "windows": None}
    assert [(c.field, c.before, c.after) for c in changed.changes][:2] == [
        ("queue", "q", None),
        ("jitter_seconds", None, 60.0),
    ]
    assert (await schedules.change("x", overlap="allow_all", if_version=2)).version == 3
    with pytest.raises(Conflict) as refused:
        await schedules.change("x", overlap="skip", if_version=2)
    assert refused.value.code == "version_mismatch"


async def test_what_will_run_comes_with_its_reasons(fake: FakeCluster, app: Scheduler) -> None:
    schedules = app.client.schedules
    await schedules.create("t", "30 2 * * *", id="x")
    following = await schedules.next("x", 1, after=NOON)
    (night,) = following.next
    assert (night.notes[0].code, night.utc.hour, following.explanation) == ("gap", 1, "at night")
    both = await schedules.preview("30 2 * * *", timezone="Europe/Berlin", omitted=True, count=2)
    assert [(each.runs, each.reason) for each in both.next] == [(False, "holiday"), (True, None)]
    assert sent(fake, "POST") == {
        "schedule": "30 2 * * *", "timezone": "Europe/Berlin", "count": 2, "omitted": True,
    }  # fmt: skip
    diff = await schedules.diff("x", 5, schedule="0 3 * * *")
    assert ([o.note for o in diff.removed], len(diff.added)) == (["Christmas"], 1)


async def test_runs_beside_the_plan(fake: FakeCluster, app: Scheduler) -> None:
    schedules = app.client.schedules
    await schedules.create("t", "@daily", id="x")
    assert await schedules.trigger("x", payload=[1], priority="high", timeout="1m") == "8"
    assert sent(fake, "POST") == {"payload": [1], "priority": "high", "timeout_seconds": 60.0}
    assert await schedules.trigger("x", overlap="skip") is None
    planned = await schedules.backfill("x", NOON, NOON + timedelta(days=1), dry_run=True)
    assert (planned.backfill_id, planned.count) == (None, 1)
    started = await schedules.backfill("x", NOON, "2027-01-02T00:00:00Z", per_minute=6)
    assert started.backfill_id == 3
    assert sent(fake, "POST")["per_minute"] == 6
    (progress,) = await schedules.backfills("x")
    assert (progress.launched, progress.total) == (2, 9)
    await schedules.stop_backfill("x", 3)
    with pytest.raises(NotFound):
        await schedules.stop_backfill("x", 4)
    runs = await schedules.runs("x", nominal=NOON)
    assert runs.items[0].nominal_at == NOON
    (event,) = await schedules.timeline("x")
    assert (event.kind, event.count, event.reason) == ("skipped", 3, "overlap")
    await schedules.pause("x", "holiday")
    assert (await schedules.get("x")).note == "holiday"
    resumed = await schedules.resume("x")
    assert (resumed.paused, resumed.left_out) == (False, 2)


async def test_all_pages_are_listed(fake: FakeCluster, app: Scheduler) -> None:
    for name in "edcba":
        await app.client.schedules.create("t", "@daily", id=name)
    assert [view.schedule_id for view in await app.client.schedules.list()] == [*"abcde"]


async def test_declared_schedules_are_stored_once_and_follow_the_code(
    fake: FakeCluster, app: Scheduler
) -> None:
    @app.every("90s", id="often", payload={"a": 1}, overlap="allow_all", timeout="1h")
    @app.cron("*/5 * * * *", timezone="Europe/Berlin", windows="off_peak")
    @app.task(queue="mail", timeout="5m")
    async def sweep(payload: dict[str, int] | None = None) -> None: ...

    await app.sync_schedules()
    swept, often = fake.schedules["sweep"], fake.schedules["often"]
    assert (swept["schedule"], swept["timezone"]) == ("*/5 * * * *", "Europe/Berlin")
    assert (swept["queue"], swept["timeout_seconds"]) == ("mail", 300.0)
    assert (often["every_seconds"], often["overlap"]) == (90, "allow_all")
    assert (often["queue"], often["timeout_seconds"]) == ("mail", 3600.0)
    swept["run_count"] = 4
    often |= {"run_count": 5, "every_seconds": 30, "paused": True}
    views = await app.sync_schedules()
    assert [view.run_count for view in views] == [4, 5]
    assert fake.schedules["often"]["every_seconds"] == 90
    assert fake.schedules["often"]["paused"] is True
    assert fake.schedules["sweep"]["version"] == 1


def test_a_declaration_with_a_typing_error_fails_where_it_stands() -> None:
    app = Scheduler("http://127.0.0.1:1")
    with pytest.raises(TaskDefinitionError, match="timezome"):
        app.cron("@daily", timezome="UTC")  # type: ignore[call-arg]
    with pytest.raises(TaskDefinitionError, match="duration"):
        app.every("5m", jitter="soon")


async def test_the_twin_without_a_loop_does_the_same(fake: FakeCluster) -> None:
    import asyncio

    def use() -> tuple[str, int, list[str]]:
        with SyncClient(fake.urls) as client:
            client.schedules.put("x", "t", "@daily")
            forecast = client.schedules.next("x")
            listed = [view.schedule_id for view in client.schedules.iterate()]
            return client.schedules.change("x", note="n").outcome, len(forecast.next), listed

    assert await asyncio.to_thread(use) == ("changed", 1, ["x"])
