"""What will run: next, preview, diff, with the odd moments explained."""

NIGHT = {"name": "t", "schedule": "30 2 * * *", "timezone": "Europe/Berlin"}
AFTER = "2027-03-27T00:00:00Z"


async def test_next_explains_a_night_without_half_past_two(api):
    await api("PUT", "/v1/schedules/x", NIGHT)
    answer = await api.get(f"/v1/schedules/x/next?count=3&after={AFTER}")
    assert (answer["schedule_id"], answer["timezone"]) == ("x", "Europe/Berlin")
    assert "02:30" in answer["explanation"]
    assert "tzdata" in answer["releases"]
    assert [each["utc"] for each in answer["next"]] == [
        "2027-03-27T01:30:00.000Z",
        "2027-03-28T01:00:00.000Z",
        "2027-03-29T00:30:00.000Z",
    ]
    usual, odd, _ = answer["next"]
    assert (usual["note"], usual["notes"], usual["runs"]) == (None, [], True)
    assert "02:30" in odd["note"] and "2027-03-28" in odd["note"]
    assert [note["code"] for note in odd["notes"]] == ["gap"]
    assert "03:00" in odd["local"]
    assert answer["complete"] is False
    assert len((await api.get("/v1/schedules/x/next"))["next"]) == 10


async def test_what_is_left_out_can_be_seen(api):
    body = {
        **NIGHT,
        "dst": {"gap": "skip"},
        "blackouts": [{"from": "2027-03-29T00:00:00Z", "to": "2027-03-30T00:00:00Z"}],
        "after": AFTER,
        "count": 4,
    }
    runs = (await api("POST", "/v1/schedules/preview", body)).json
    assert [each["utc"][:10] for each in runs["next"]] == [
        "2027-03-27", "2027-03-30", "2027-03-31", "2027-04-01",
    ]  # fmt: skip
    everything = (await api("POST", "/v1/schedules/preview", {**body, "omitted": True})).json
    assert [(each["runs"], each["reason"]) for each in everything["next"]] == [
        (True, None), (False, "gap"), (False, "blackout"), (True, None),
    ]  # fmt: skip
    assert all(each["note"] for each in everything["next"] if not each["runs"])
    await api("PUT", "/v1/schedules/x", {k: v for k, v in body.items() if k in (*NIGHT, "dst")})
    shown = await api.get(f"/v1/schedules/x/next?count=2&after={AFTER}&omitted=true")
    assert [each["runs"] for each in shown["next"]] == [True, False]


async def test_a_preview_makes_nothing_and_ends_where_the_plan_ends(api, node):
    entries = node.raft.applied_index
    times = ["2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z"]
    answer = await api("POST", "/v1/schedules/preview", {"at": times})
    assert (answer.status, answer.json["schedule_id"]) == (200, None)
    assert [each["utc"] for each in answer.json["next"]] == [
        "2027-01-01T00:00:00.000Z", "2027-01-02T00:00:00.000Z",
    ]  # fmt: skip
    assert answer.json["complete"] is True
    assert node.raft.applied_index == entries
    drawn = {"schedule": "H * * * *", "count": 1}
    minutes = [
        (await api("POST", "/v1/schedules/preview", {**drawn, "id": name})).json["next"][0]["utc"]
        for name in ("a", "b", "c", "d")
    ]
    assert len(set(minutes)) > 1
    for query in ("count=0", "count=501", "after=yesterday", "count=x", "hours=3"):
        assert (await api("GET", f"/v1/schedules/x/next?{query}")).status == 422
    assert (await api("GET", "/v1/schedules/none/next")).code == "unknown_schedule"


async def test_diff_tells_what_a_change_adds_and_removes(api, node):
    await api("PUT", "/v1/schedules/x", {"name": "t", "schedule": "0 9,17 * * *"})
    entries = node.raft.applied_index
    path = "/v1/schedules/x/diff?count=4&after=2027-01-01T00:00:00Z"
    diff = (await api("POST", path, {"schedule": "0 9,18 * * *", "queue": "q"})).json
    assert [each["utc"] for each in diff["before"]] == [
        "2027-01-01T09:00:00.000Z", "2027-01-01T17:00:00.000Z",
        "2027-01-02T09:00:00.000Z", "2027-01-02T17:00:00.000Z",
    ]  # fmt: skip
    assert [each["utc"] for each in diff["added"]] == ["2027-01-01T18:00:00.000Z"]
    assert [each["utc"] for each in diff["removed"]] == [
        "2027-01-01T17:00:00.000Z", "2027-01-02T17:00:00.000Z",
    ]  # fmt: skip
    assert diff["until"] == "2027-01-02T17:00:00.000Z"
    assert {change["field"] for change in diff["changes"]} == {"schedule", "queue"}
    assert diff["explanation_before"] != diff["explanation_after"]
    same = (await api("POST", path, {"queue": "q"})).json
    assert (same["added"], same["removed"]) == ([], [])
    fewer = (await api("POST", path, {"end_at": "2027-01-02T00:00:00Z"})).json
    assert [each["utc"][:10] for each in fewer["removed"]] == ["2027-01-02", "2027-01-02"]
    assert node.raft.applied_index == entries
    assert (await api("POST", "/v1/schedules/none/diff", {})).code == "unknown_schedule"
