"""What a schedule did: its runs, live and over, and what happened to it."""

import pytest

MINUTELY = {"name": "t", "schedule": "* * * * *", "overlap": "skip"}
HOUR = {"from": "2026-11-18T10:00:00Z", "to": "2026-11-18T10:05:00Z"}


@pytest.fixture
async def five(api):
    """Five occurrences made up for, one after the other; the last one is alive."""
    await api("PUT", "/v1/schedules/x", MINUTELY)
    await api("POST", "/v1/schedules/x/backfill", HOUR)
    worker = await api.worker()
    for _ in range(4):
        (job,) = await worker.take()
        await api("PUT", f"/v1/jobs/{job.job_id}/complete", {"attempt": job.attempt})
    await worker.take()
    return api


async def test_runs_are_listed_newest_first_wherever_they_are(five):
    page = await five.get("/v1/schedules/x/runs?limit=2")
    assert [job["job_id"] for job in page["items"]] == ["5", "4"]
    assert [job["status"] for job in page["items"]] == ["running", "completed"]
    rest = await five.get(f"/v1/schedules/x/runs?limit=500&cursor={page['next_cursor']}")
    assert [job["nominal_at"] for job in rest["items"]] == [
        "2026-11-18T10:02:00.000Z", "2026-11-18T10:01:00.000Z", "2026-11-18T10:00:00.000Z",
    ]  # fmt: skip
    assert rest["next_cursor"] is None
    assert [each["outcome"] for each in (await five.get("/v1/schedules/x"))["recent"]] == (
        ["completed"] * 4
    )


async def test_one_occurrence_is_found_by_its_nominal_time(five):
    for moment, job_id in (("2026-11-18T10:01:00Z", "2"), ("2026-11-18T11:04:00%2B01:00", "5")):
        (job,) = (await five.get(f"/v1/schedules/x/runs?nominal={moment}"))["items"]
        assert job["job_id"] == job_id
    none = await five.get("/v1/schedules/x/runs?nominal=2026-11-18T10:01:01Z")
    assert none == {"items": [], "next_cursor": None}
    assert (await five("GET", "/v1/schedules/x/runs?nominal=noon")).pointer == "/nominal"
    assert (await five("GET", "/v1/schedules/x/runs?cursor=x")).pointer == "/cursor"
    assert (await five("GET", "/v1/schedules/none/runs")).code == "unknown_schedule"


async def test_a_deleted_schedule_keeps_its_past(five):
    await five("DELETE", "/v1/schedules/x")
    assert len((await five.get("/v1/schedules/x/runs"))["items"]) == 5
    assert (await five.get("/v1/schedules/x/timeline"))["events"][0]["kind"] == "deleted"
    assert (await five("GET", "/v1/schedules/none/timeline")).code == "unknown_schedule"


async def test_the_timeline_tells_launches_and_what_was_left_out(five, node):
    await five("POST", "/v1/schedules/x/trigger", {"overlap": "skip"})
    await five("POST", "/v1/schedules/x/pause", {"note": "holiday"})
    node.clock.advance(180_000)
    await five("POST", "/v1/schedules/x/resume")
    events = (await five.get("/v1/schedules/x/timeline"))["events"]
    told = [(event["kind"], event["count"], event["text"]) for event in events]
    assert ("missed", 3, "left out: the schedule was paused") in told
    assert ("skipped", 1, "left out: another run was alive") in told
    assert ("launched", 1, "started: job 3") in told
    assert {"resumed", "paused", "backfill_started"} <= {kind for kind, _, _ in told}
    assert [event["at"] for event in events] == sorted((e["at"] for e in events), reverse=True)
    missed = next(event for event in events if event["kind"] == "missed")
    assert (missed["nominal_at"], missed["last_nominal_at"], missed["reason"]) == (
        "2026-11-18T11:07:00.000Z",
        "2026-11-18T11:09:00.000Z",
        "paused",
    )


async def test_like_omissions_in_a_row_are_told_once(five):
    for _ in range(3):
        await five("POST", "/v1/schedules/x/trigger", {"overlap": "skip"})
        five.node.clock.advance(1_000)
    event = (await five.get("/v1/schedules/x/timeline"))["events"][0]
    assert (event["kind"], event["count"]) == ("skipped", 3)
    assert (event["nominal_at"], event["last_nominal_at"]) == (
        "2026-11-18T11:06:40.000Z",
        "2026-11-18T11:06:42.000Z",
    )


async def test_a_timeline_is_read_in_pages(five):
    await five("POST", "/v1/schedules/x/pause")
    whole = (await five.get("/v1/schedules/x/timeline?limit=500"))["events"]
    parts, cursor = [], ""
    while cursor is not None:
        page = await five.get(f"/v1/schedules/x/timeline?limit=2&cursor={cursor}")
        assert len(page["events"]) <= 2
        parts += page["events"]
        cursor = page["next_cursor"]
    assert parts == whole
    for cursor in ("x", "1", "1.x", "-1.2"):
        answer = await five("GET", f"/v1/schedules/x/timeline?cursor={cursor}")
        assert (answer.status, answer.pointer) == (422, "/cursor")


async def test_a_node_without_a_history_tells_what_the_state_remembers(five, node):
    async def nothing(*_asked):
        return []

    node.history.schedule_events = nothing
    events = (await five.get("/v1/schedules/x/timeline"))["events"]
    assert "backfill_started" in {event["kind"] for event in events}
