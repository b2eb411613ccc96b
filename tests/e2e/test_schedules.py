"""Schedules on a real cluster, through HTTP, Python and the command line, with a leader killed."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chaos.live.processes import ROOT, LocalCluster
from quorate import Client
from quorate.views import JobView

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

TASKS = "tests.e2e.tasks:app"
SECOND = timedelta(seconds=1)


async def quorate(cluster: LocalCluster, *argv: str) -> list[dict[str, Any]]:
    """What `quorate schedules ...` prints, a document a line."""
    command = [sys.executable, "-m", "quorate", "schedules", *argv, "--nodes", cluster.urls]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, cwd=ROOT)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in out.splitlines()]


async def has_run(cluster: LocalCluster, client: Client, schedule_id: str, count: int) -> None:
    async def so() -> bool:
        return (await client.schedules.get(schedule_id)).run_count >= count

    await cluster.until(so, f"schedule {schedule_id} to run {count} times")


async def all_runs(client: Client, schedule_id: str) -> list[JobView]:
    runs: list[JobView] = []
    cursor: str | None = None
    while True:
        page = await client.schedules.runs(schedule_id, limit=7, cursor=cursor)
        runs += page.items
        cursor = page.next_cursor
        if cursor is None:
            return runs


async def test_a_schedule_from_its_preview_to_its_end(
    cluster: LocalCluster, client: Client
) -> None:
    await cluster.worker("w", TASKS, slots=16)
    (preview,) = await quorate(
        cluster, "preview", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--after",
        "2027-03-27T12:00:00Z", "--count", "2",
    )  # fmt: skip
    night, morrow = preview["next"]
    assert (night["utc"], night["notes"][0]["code"]) == ("2027-03-28T01:00:00.000Z", "gap")
    assert (morrow["utc"], morrow["note"]) == ("2027-03-29T00:30:00.000Z", None)

    made = await client.schedules.put(
        "tick", "quick", "* * * * * *", timezone="Europe/Berlin", overlap="allow_all", payload="p"
    )
    assert (made.outcome, made.version) == ("created", 1)
    await has_run(cluster, client, "tick", 2)
    (triggered,) = await quorate(cluster, "trigger", "tick", "--payload", '"by hand"')
    by_hand = await client.handle(triggered["job_id"]).wait(60)
    assert (by_hand.status, by_hand.output) == ("completed", "by hand")

    leader = await cluster.leader()
    await leader.kill()
    count = (await client.schedules.get("tick")).run_count
    await has_run(cluster, client, "tick", count + 3)
    await leader.start()
    await cluster.ready()

    (paused,) = await quorate(cluster, "pause", "tick", "--note", "count")
    assert (paused["status"], paused["note"], paused["next_run"]) == ("paused", "count", None)

    async def settled() -> bool:
        return (await client.schedules.get("tick")).running == 0

    await cluster.until(settled, "all runs to end")
    runs = [run for run in await all_runs(client, "tick") if run.job_id != by_hand.job_id]
    assert {run.status for run in runs} == {"completed"}
    planned = sorted(run.nominal_at for run in runs if run.nominal_at is not None)
    assert len(planned) == len(runs) == (await client.schedules.get("tick")).run_count - 1
    # Every second from the first to the last one, each once, also those of the failover.
    assert planned == [planned[0] + n * SECOND for n in range(len(planned))]
    for moment in (planned[0], planned[-1]):
        status, found = await cluster.request(
            "GET", "/v1/schedules/tick/runs", params={"nominal": moment.isoformat()}
        )
        assert (status, len(found["items"])) == (200, 1)

    async def one_is_due() -> bool:
        return datetime.now(UTC) >= planned[-1] + 2 * SECOND

    await cluster.until(one_is_due, "an occurrence to come up while the schedule is paused")
    (resumed,) = await quorate(cluster, "resume", "tick")
    assert (resumed["left_out"] >= 1, resumed["more"]) == (True, False)
    changed = await client.schedules.change("tick", schedule="0 0 1 1 *", windows="off_peak")
    assert {change.field for change in changed.changes} == {"schedule", "windows"}
    kinds = {event.kind for event in await client.schedules.timeline("tick", limit=500)}
    assert {"paused", "resumed", "missed", "changed"} <= kinds
    await client.schedules.delete("tick")


async def test_an_overlap_is_left_out_and_seen(cluster: LocalCluster, client: Client) -> None:
    await cluster.worker("w", TASKS, slots=16)
    await client.schedules.create("slow", every=0.5, id="crowd", payload=2.2)

    async def skipped() -> bool:
        return (await client.schedules.get("crowd")).skipped_count >= 2

    await cluster.until(skipped, "an occurrence to be left out")
    view = await client.schedules.get("crowd")
    assert view.running <= 1
    (event,) = [e for e in await client.schedules.timeline("crowd") if e.kind == "skipped"][:1]
    assert (event.reason, event.count >= 1) == ("overlap", True)


@pytest.mark.parametrize("policy", ["cancel_other", "terminate_other"])
async def test_a_newer_occurrence_stops_the_older_one(
    cluster: LocalCluster, client: Client, policy: Any
) -> None:
    await cluster.worker("w", TASKS, slots=16)
    await client.schedules.create("slow", every=1, id="long", payload=60, overlap=policy)

    async def replaced() -> bool:
        ended = (await client.schedules.get("long")).recent
        return len(ended) >= 2

    await cluster.until(replaced, "two runs to be stopped")
    view = await client.schedules.get("long")
    assert {each.outcome for each in view.recent} == {"cancelled"}
    assert view.running <= 1
    assert "cancelled_other" in {event.kind for event in await client.schedules.timeline("long")}


async def test_a_range_is_made_up_for_once(cluster: LocalCluster, client: Client) -> None:
    await cluster.worker("w", TASKS, slots=16)
    await client.schedules.create("quick", "* * * * *", id="minutely", payload="p", paused=True)
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    start = end - timedelta(minutes=12)
    (planned,) = await quorate(
        cluster, "backfill", "minutely", start.isoformat(), end.isoformat(), "--dry-run"
    )
    assert (planned["count"], planned["backfill_id"]) == (12, None)
    started = await client.schedules.backfill("minutely", start, end, note="the outage")
    assert started.backfill_id == 1
    leader = await cluster.leader()
    await leader.kill()

    async def finished() -> bool:
        view = await client.schedules.get("minutely")
        return view.run_count == 12 and view.running == 0

    await cluster.until(finished, "the backfill to end")
    moments = sorted(run.nominal_at for run in await all_runs(client, "minutely") if run.nominal_at)
    assert moments == [start + n * timedelta(minutes=1) for n in range(12)]
