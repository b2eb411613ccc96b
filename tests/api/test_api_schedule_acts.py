"""Runs beside the plan: by hand with other options, and made up for a time range."""

import pytest

from cluster.policy.timing.errors import GaveUp

MINUTELY = {"name": "t", "schedule": "* * * * *", "payload": {"a": 1}}
HOUR = {"from": "2026-11-18T10:00:00Z", "to": "2026-11-18T11:00:00Z"}


async def test_a_run_by_hand_may_differ(api):
    await api("PUT", "/v1/schedules/x", {**MINUTELY, "queue": "q"})
    body = {
        "payload": [2],
        "queue": "r",
        "priority": "critical",
        "max_retries": 9,
        "timeout_seconds": 5,
    }
    started = await api("POST", "/v1/schedules/x/trigger", body)
    assert (started.status, started.headers["Location"]) == (201, "/v1/jobs/1")
    job = await api.get("/v1/jobs/1")
    assert (job["payload"], job["queue"], job["priority"]) == ([2], "r", 1)
    assert (job["max_retries"], job["timeout_seconds"], job["schedule_id"]) == (9, 5.0, "x")
    plain = (await api("POST", "/v1/schedules/x/trigger")).json
    assert (await api.get(f"/v1/jobs/{plain['job_id']}"))["queue"] == "q"


async def test_a_run_by_hand_obeys_the_policy_it_names(api):
    await api("PUT", "/v1/schedules/x", MINUTELY)
    path = "/v1/schedules/x/trigger"
    assert (await api("POST", path)).json["outcome"] == "started"
    assert (await api("POST", path)).json["job_id"] == "2"  # allow_all
    skipped = await api("POST", path, {"overlap": "skip"})
    assert (skipped.status, skipped.json["job_id"], skipped.json["outcome"]) == (
        201,
        None,
        "skipped",
    )
    waits = (await api("POST", path, {"overlap": "buffer_one"})).json
    assert (waits["job_id"], waits["outcome"]) == (None, "buffered")
    schedule = await api.get("/v1/schedules/x")
    assert (schedule["running"], schedule["running_jobs"], schedule["buffered"]) == (
        2,
        ["1", "2"],
        1,
    )
    assert (await api("POST", path, {"overlap": "perhaps"})).pointer == "/overlap"
    assert (await api("POST", path, {"queue": " x"})).pointer == "/queue"


async def test_a_backfill_runs_one_after_the_other(api, node):
    await api("PUT", "/v1/schedules/x", MINUTELY)
    planned = await api("POST", "/v1/schedules/x/backfill", {**HOUR, "dry_run": True})
    assert (planned.status, planned.json["backfill_id"], planned.json["count"]) == (200, None, 60)
    assert (planned.json["first"], planned.json["last"]) == (
        "2026-11-18T10:00:00.000Z",
        "2026-11-18T10:59:00.000Z",
    )
    assert len(planned.json["occurrences"]) == 60
    assert (await api.get("/v1/schedules/x/backfills"))["items"] == []
    started = await api("POST", "/v1/schedules/x/backfill", {**HOUR, "note": "the outage"})
    assert (started.status, started.json["backfill_id"]) == (201, 1)
    assert started.headers["Location"] == "/v1/schedules/x/backfills/1"
    (progress,) = (await api.get("/v1/schedules/x/backfills"))["items"]
    assert (progress["status"], progress["total"], progress["launched"]) == ("running", 60, 1)
    assert (progress["waiting"], progress["note"]) == (59, "the outage")
    job = await api.get("/v1/jobs/1")
    assert job["nominal_at"] == "2026-11-18T10:00:00.000Z"
    assert (await api("DELETE", "/v1/schedules/x/backfills/1")).status == 204
    gone = await api("DELETE", "/v1/schedules/x/backfills/1")
    assert (gone.status, gone.code) == (404, "unknown_backfill")
    assert (await api("DELETE", "/v1/schedules/x/backfills/all")).code == "unknown_backfill"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"from": HOUR["to"], "to": HOUR["from"]}, "/to"),
        ({"from": HOUR["from"], "to": "2027-01-01T00:00:00Z"}, "/to"),
        ({"from": "2025-01-01T00:00:00Z", "to": HOUR["to"]}, "/to"),
        ({"from": "2026-11-18T10:00:01Z", "to": "2026-11-18T10:00:59Z"}, "/from"),
        ({"from": "yesterday", "to": HOUR["to"]}, "/from"),
        ({"from": HOUR["from"]}, "/to"),
        ({**HOUR, "overlap": "perhaps"}, "/overlap"),
        ({**HOUR, "per_minute": -1}, "/per_minute"),
    ],
)
async def test_bad_ranges_are_pointed_at(api, body, pointer):
    await api("PUT", "/v1/schedules/x", MINUTELY)
    answer = await api("POST", "/v1/schedules/x/backfill", body)
    assert (answer.status, answer.code, answer.pointer) == (422, "validation", pointer)


async def test_nothing_is_backfilled_of_no_schedule(api):
    assert (await api("POST", "/v1/schedules/none/backfill", HOUR)).code == "unknown_schedule"
    assert (await api("GET", "/v1/schedules/none/backfills")).code == "unknown_schedule"
    assert (await api("POST", "/v1/schedules/none/trigger")).code == "unknown_schedule"


async def test_what_has_no_future_to_be_found_is_not_resumed(api, node, monkeypatch):
    await api("PUT", "/v1/schedules/x", {**MINUTELY, "paused": True})

    async def give_up(*_args):
        raise GaveUp("none of the next 100000 instants runs")

    monkeypatch.setattr(node.services.planner, "resume", give_up)
    refused = await api("POST", "/v1/schedules/x/resume")
    assert refused.status == 422 and "change the schedule first" in refused.json["detail"]
    assert (await api.get("/v1/schedules/x"))["paused"]
