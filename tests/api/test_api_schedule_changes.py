"""Definitions: declared again and again, changed in part, against a version."""

import pytest

NOON = {"name": "t", "schedule": "0 12 * * *"}
FULL = {
    "name": "t",
    "any_of": [
        {"schedule": "0 9 * * 1-5"},
        {"every_seconds": 3600.0, "anchor": "2026-01-01T00:00:00.000Z"},
        {"at": ["2027-01-01T00:00:00.000Z", "2027-01-02T00:00:00.000Z"]},
    ],
    "except": [{"schedule": "0 9 1 * *"}],
    "timezone": "Europe/Berlin",
    "dst": {"gap": "shift", "overlap": "both"},
    "windows": [{"from": "08:00", "to": "18:00:30", "weekdays": ["mon", "tue"]}],
    "outside_window": "skip",
    "blackouts": [
        {"from": "2026-12-24T00:00:00.000Z", "to": "2026-12-27T00:00:00.000Z"},
        {"from": "12:00", "to": "13:00"},
    ],
    "start_at": "2026-12-01T00:00:00.000Z",
    "end_at": "2028-01-01T00:00:00.000Z",
    "max_executions": 7,
    "jitter_seconds": 30.0,
    "overlap": "buffer_one",
    "catchup": "all",
    "catchup_window_seconds": 600.0,
    "catchup_max_runs": 9,
    "payload": {"a": [1, None]},
    "queue": "q",
    "priority": 2,
    "max_retries": 0,
    "retry": {"strategy": "fixed", "base_seconds": 2.0, "max_seconds": 2.0, "jitter": False},
    "timeout_seconds": 60.0,
    "queue_timeout_seconds": 5.0,
    "total_timeout_seconds": 90.0,
    "tags": ["x"],
}


async def test_a_definition_is_shown_as_it_was_given(api):
    created = await api("PUT", "/v1/schedules/x", FULL)
    assert created.status == 201
    assert {name: created.json[name] for name in FULL} == FULL
    shown = await api.get("/v1/schedules/x")
    assert {name: shown[name] for name in FULL} == FULL
    definition = {name: shown[name] for name in [*FULL, "on_holiday", "calendars"]}
    again = await api("PUT", "/v1/schedules/x", definition)
    assert (again.status, again.json["outcome"], again.json["changes"]) == (200, "unchanged", [])


async def test_new_schedules_skip_overlaps_and_catch_up_once(api):
    for path, body in (("/v1/schedules", NOON), ("/v1/jobs", {**NOON, "timezone": "Asia/Tokyo"})):
        made = (await api("POST", path, body)).json
        assert (made["overlap"], made["catchup"]) == ("skip", "one")
    assert (made["timezone"], made["next_run"]) == ("Asia/Tokyo", "2026-11-19T03:00:00.000Z")


async def test_put_declares(api, node):
    made = await api("PUT", "/v1/schedules/x", {**NOON, "queue": "q"})
    assert (made.status, made.headers["Location"]) == (201, "/v1/schedules/x")
    assert (made.json["outcome"], made.json["version"], made.headers["ETag"]) == (
        "created",
        1,
        '"1"',
    )
    assert made.json["change_explanation"] == "the first run is 2026-11-18T12:00:00.000Z"
    entries = node.raft.applied_index
    same = await api("PUT", "/v1/schedules/x", {**NOON, "queue": "q", "id": "x"})
    assert (same.status, same.json["outcome"], same.json["version"]) == (200, "unchanged", 1)
    assert same.json["change_explanation"] == "nothing changed"
    assert node.raft.applied_index == entries
    assert node.raft.read_indexes == 1  # unchanged is only said by who still leads
    await api("POST", "/v1/schedules/x/pause", {"note": "why"})
    await api("POST", "/v1/schedules/x/trigger")
    changed = await api("PUT", "/v1/schedules/x", {"name": "t", "schedule": "0 18 * * *"})
    schedule = changed.json
    assert (changed.status, schedule["outcome"], schedule["version"]) == (200, "changed", 2)
    assert [(c["field"], c["before"], c["after"]) for c in schedule["changes"]] == [
        ("schedule", "0 12 * * *", "0 18 * * *"),
        ("queue", "q", "default"),
    ]
    assert (schedule["paused"], schedule["note"], schedule["run_count"]) == (True, "why", 1)
    on = await api("PUT", "/v1/schedules/x", {**NOON, "schedule": "0 18 * * *", "paused": False})
    assert (on.json["paused"], on.json["next_run"]) == (False, "2026-11-18T18:00:00.000Z")
    elsewhere = await api("PUT", "/v1/schedules/x", {**NOON, "id": "y"})
    assert (elsewhere.status, elsewhere.pointer) == (422, "/id")
    assert (await api("PUT", "/v1/schedules/s7", NOON)).pointer == "/id"


async def test_an_interval_that_is_declared_again_goes_on_in_step(api, node):
    body = {"name": "t", "every_seconds": 600}
    first = (await api("PUT", "/v1/schedules/x", body)).json
    assert (first["anchor"], first["next_run"]) == (
        "2026-11-18T11:06:40.000Z",
        "2026-11-18T11:16:40.000Z",
    )
    node.clock.advance(60_000)
    again = (await api("PUT", "/v1/schedules/x", body)).json
    assert (again["outcome"], again["next_run"]) == ("unchanged", first["next_run"])
    other_job = (await api("PUT", "/v1/schedules/x", {**body, "queue": "q"})).json
    assert (other_job["outcome"], other_job["next_run"]) == ("changed", first["next_run"])
    slower = (await api("PUT", "/v1/schedules/x", {**body, "every_seconds": 1200})).json
    assert slower["next_run"] == "2026-11-18T11:27:40.000Z"


async def test_patch_changes_what_is_named(api):
    await api("PUT", "/v1/schedules/x", FULL)
    changed = await api("PATCH", "/v1/schedules/x", {"queue": "r", "jitter_seconds": None})
    assert (changed.status, changed.json["version"], changed.headers["ETag"]) == (200, 2, '"2"')
    assert {c["field"] for c in changed.json["changes"]} == {"queue", "jitter_seconds"}
    kept = {name: value for name, value in FULL.items() if name not in ("queue", "jitter_seconds")}
    assert {name: changed.json[name] for name in kept} == kept
    one = (await api("PATCH", "/v1/schedules/x", {"dst": {"gap": "run"}})).json
    assert one["dst"] == {"gap": "run", "overlap": "both"}
    plain = (await api("PATCH", "/v1/schedules/x", {"dst": None, "windows": None})).json
    assert (plain["dst"], plain["windows"]) == (None, None)
    assert (await api("PATCH", "/v1/schedules/x", {})).json["outcome"] == "unchanged"
    gone = await api("PATCH", "/v1/schedules/none", {"queue": "q"})
    assert (gone.status, gone.code) == (404, "unknown_schedule")


async def test_a_new_trigger_takes_the_place_of_the_old_one(api):
    await api("PUT", "/v1/schedules/x", NOON)
    every = (await api("PATCH", "/v1/schedules/x", {"every_seconds": 60})).json
    assert (every["schedule"], every["every_seconds"]) == (None, 60.0)
    assert every["next_run"] == "2026-11-18T11:07:40.000Z"
    assert (
        "the next run is 2026-11-18T11:07:40.000Z instead of 2026-11-18T12:00:00.000Z"
        in (every["change_explanation"])
    )
    two = (await api("PATCH", "/v1/schedules/x", {"any_of": [{"schedule": "@daily"}] * 2})).json
    assert (len(two["any_of"]), two["every_seconds"], two["anchor"]) == (2, None, None)
    command = (await api("PATCH", "/v1/schedules/x", {"command": "date"})).json
    assert (command["name"], command["payload"]) == ("command", {"command": "date"})
    none = await api("PATCH", "/v1/schedules/x", {"any_of": None})
    assert (none.status, none.pointer) == (422, "/schedule")


async def test_a_pause_may_be_part_of_a_definition(api):
    made = (await api("PUT", "/v1/schedules/x", {**NOON, "paused": True, "note": "later"})).json
    assert (made["status"], made["note"], made["next_run"]) == ("paused", "later", None)
    assert (await api("PUT", "/v1/schedules/x", NOON)).json["paused"] is True
    on = (await api("PATCH", "/v1/schedules/x", {"paused": False})).json
    assert (on["outcome"], on["paused"], on["next_run"]) == (
        "changed",
        False,
        "2026-11-18T12:00:00.000Z",
    )
    off = (await api("PATCH", "/v1/schedules/x", {"paused": True, "note": "again"})).json
    assert (off["paused"], off["note"]) == (True, "again")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_change_may_ask_for_a_version(api, method):
    await api("PUT", "/v1/schedules/x", NOON)
    body = {**NOON, "queue": "q"}
    assert (await api(method, "/v1/schedules/x", body, If_Match='"1"')).status == 200
    late = await api(method, "/v1/schedules/x", {**NOON, "queue": "r"}, If_Match='"1"')
    assert (late.status, late.code) == (412, "version_mismatch")
    assert (await api.get("/v1/schedules/x"))["queue"] == "q"
    assert (await api(method, "/v1/schedules/x", body, If_Match="*")).status == 200
    for text in ('"x"', '"0"', "-1", '""'):
        assert (await api(method, "/v1/schedules/x", body, If_Match=text)).status == 422
    assert (await api("PUT", "/v1/schedules/new", body, If_Match='"1"')).status == 412
    assert (await api("PUT", "/v1/schedules/x", body, If_None_Match="*")).status == 412
    assert (await api("PUT", "/v1/schedules/new", body, If_None_Match="*")).status == 201


async def test_who_is_overtaken_starts_over(api, node):
    """Two definitions at once: both are stored, one after the other, neither is lost unseen."""
    import asyncio

    await api("PUT", "/v1/schedules/x", NOON)
    node.raft.held = []
    first = asyncio.create_task(api("PATCH", "/v1/schedules/x", {"queue": "q"}))
    second = asyncio.create_task(api("PATCH", "/v1/schedules/x", {"tags": ["x"]}))
    from api_fakes import until

    await until(lambda: len(node.raft.held) + node.proposer.queued >= 2 or len(node.raft.held) == 1)
    await asyncio.sleep(0.05)
    node.raft.release_held()
    answers = await asyncio.gather(first, second)
    assert [answer.status for answer in answers] == [200, 200]
    stored = await api.get("/v1/schedules/x")
    assert (stored["queue"], stored["tags"], stored["version"]) == ("q", ["x"], 3)


async def test_a_schedule_that_has_ended_may_be_declared_again(api, node):
    body = {"name": "t", "at": ["2026-11-18T11:10:00Z"], "id": "once"}
    await api("PUT", "/v1/schedules/once", body)
    node.clock.advance(600_000)
    again = await api("PUT", "/v1/schedules/once", body)
    assert (again.status, again.json["outcome"]) == (200, "unchanged")
    new = await api("PUT", "/v1/schedules/other", {**body, "id": "other"})
    assert (new.status, new.pointer) == (422, "/at")


async def test_a_repeated_creation_answers_the_first_one(api):
    body = {"name": "t", "every_seconds": 5, "jitter_seconds": 2}
    first = await api("POST", "/v1/schedules", body, Idempotency_Key="k")
    again = await api("POST", "/v1/schedules", body, Idempotency_Key="k")
    assert (again.status, again.json["id"]) == (201, first.json["id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await api("POST", "/v1/schedules", {**body, "queue": "q"}, Idempotency_Key="k")
    assert (other.status, other.code) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    "body", [{"schedule": "H H * * *"}, {"every_seconds": 5, "jitter_seconds": 2}]
)
async def test_what_is_drawn_by_the_id_is_drawn_by_the_final_one(api, body):
    made = (await api("POST", "/v1/schedules", {"name": "t", **body})).json
    following = await api.get(f"/v1/schedules/{made['id']}/next?count=1")
    assert following["next"][0]["utc"] == made["next_run"]


async def test_the_first_run_is_found_behind_a_long_blackout(api):
    year = {"from": "2026-11-01T00:00:00Z", "to": "2027-11-01T00:00:00Z"}
    body = {"name": "t", "schedule": "* * * * *", "blackouts": [year]}
    made = (await api("PUT", "/v1/schedules/x", body)).json
    assert (made["status"], made["next_run"]) == ("pending", "2027-11-01T00:00:00.000Z")
