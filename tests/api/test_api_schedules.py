"""Recurring jobs."""

import pytest

CRON = {"name": "t", "schedule": "*/5 * * * *"}


async def test_a_schedule_is_created_shown_and_deleted(api):
    body = {**CRON, "id": "nightly", "payload": {"a": 1}, "queue": "q", "queue_timeout_seconds": 9}
    created = await api("POST", "/v1/schedules", body)
    assert created.status == 201
    assert created.headers["Location"] == "/v1/schedules/nightly"
    schedule = created.json
    assert (schedule["schedule_id"], schedule["id"]) == ("nightly", "nightly")
    assert (schedule["schedule"], schedule["every_seconds"]) == ("*/5 * * * *", None)
    assert schedule["next_run"] == "2026-11-18T11:10:00.000Z"
    assert (schedule["timezone"], schedule["paused"], schedule["last_run"]) == ("UTC", False, None)
    assert (schedule["payload"], schedule["queue"]) == ({"a": 1}, "q")
    assert schedule["queue_timeout_seconds"] == 9.0
    assert await api.get("/v1/schedules/nightly") == schedule
    taken = await api("POST", "/v1/schedules", body)
    assert (taken.status, taken.code, taken.pointer) == (409, "conflict", "/id")
    assert (await api("DELETE", "/v1/schedules/nightly")).status == 204
    gone = await api("GET", "/v1/schedules/nightly")
    assert (gone.status, gone.code) == (404, "unknown_schedule")


async def test_an_interval_starts_one_interval_from_now(api):
    schedule = (await api("POST", "/v1/schedules", {"name": "t", "every_seconds": 30})).json
    assert (schedule["schedule_id"], schedule["every_seconds"]) == ("s1", 30.0)
    assert schedule["next_run"] == "2026-11-18T11:07:10.000Z"


async def test_a_job_request_with_schedule_creates_one(api):
    answer = await api("POST", "/v1/jobs", {**CRON, "tags": ["x"], "max_retries": 1})
    assert answer.status == 201
    assert answer.json["job_id"] == answer.json["id"] == answer.json["schedule_id"] == "s1"
    assert (answer.json["status"], answer.json["next_run"]) == (
        "pending",
        "2026-11-18T11:10:00.000Z",
    )
    assert (answer.json["tags"], answer.json["max_retries"]) == (["x"], 1)


async def test_pause_resume_and_trigger(api, node):
    await api("POST", "/v1/schedules", {**CRON, "id": "x"})
    paused = (await api("POST", "/v1/schedules/x/pause", {"note": "holiday"})).json
    assert (paused["paused"], paused["note"], paused["next_run"]) == (True, "holiday", None)
    triggered = await api("POST", "/v1/schedules/x/trigger")
    assert (triggered.status, triggered.json) == (
        201,
        {"job_id": "1", "schedule_id": "x", "outcome": "started"},
    )
    job = await api.get("/v1/jobs/1")
    assert (job["schedule_id"], job["nominal_at"]) == ("x", "2026-11-18T11:06:40.000Z")
    node.clock.advance(600_000)
    resumed = (await api("POST", "/v1/schedules/x/resume")).json
    assert (resumed["paused"], resumed["note"]) == (False, None)
    assert resumed["next_run"] == "2026-11-18T11:20:00.000Z"
    assert (resumed["left_out"], resumed["left_out_first"], resumed["more"]) == (
        2,
        "2026-11-18T11:10:00.000Z",
        False,
    )
    assert (resumed["run_count"], resumed["last_job_id"]) == (1, "1")


@pytest.mark.parametrize("action", ["pause", "resume", "trigger"])
async def test_actions_on_no_schedule_are_unknown(api, action):
    answer = await api("POST", f"/v1/schedules/none/{action}")
    assert (answer.status, answer.code) == (404, "unknown_schedule")
    assert (await api("DELETE", "/v1/schedules/none")).code == "unknown_schedule"


async def test_schedules_are_listed_in_pages(api):
    for name in ("c", "a", "b"):
        await api("POST", "/v1/schedules", {**CRON, "id": name})
    page = await api.get("/v1/schedules?limit=2")
    assert [s["id"] for s in page["items"]] == ["a", "b"]
    rest = await api.get(f"/v1/schedules?limit=2&cursor={page['next_cursor']}")
    assert ([s["id"] for s in rest["items"]], rest["next_cursor"]) == (["c"], None)
