"""What is wrong with a schedule is said when it is made: the field, and what to write instead."""

import pytest

CRON = {"name": "t", "schedule": "*/5 * * * *"}
EVERY = {"name": "t", "every_seconds": 60}
NEW_YEAR, LATER, PAST = "2027-01-01T00:00:00Z", "2027-06-01T00:00:00Z", "2026-01-01T00:00:00Z"


def window(start, end, **more):
    return {"from": start, "to": end, **more}


BAD = [
    # what says when
    ({"name": "t"}, "/schedule", "exactly one of schedule, every_seconds, at and any_of"),
    ({**CRON, "every_seconds": 5}, "/every_seconds", "exactly one"),
    ({**CRON, "at": [NEW_YEAR]}, "/at", "exactly one"),
    ({**CRON, "any_of": [{"schedule": "@daily"}]}, "/any_of", "exactly one"),
    ({**CRON, "anchor": NEW_YEAR}, "/anchor", "only every_seconds"),
    ({"name": "t", "any_of": [{"at": [NEW_YEAR]}], "anchor": PAST}, "/anchor", "inside any_of"),
    ({"name": "t", "any_of": []}, "/any_of", "length >= 1"),
    ({"name": "t", "any_of": [{}]}, "/any_of/0", "exactly one"),
    ({"name": "t", "any_of": [{"schedule": "@daily", "every_seconds": 5}]}, "/any_of/0", "exactly"),
    ({"name": "t", "any_of": [{"schedule": "@daily", "anchor": PAST}]}, "/any_of/0/anchor", "only"),
    ({"name": "t", "any_of": [{"cron": "@daily"}]}, "/any_of/0/cron", "no field"),
    ({**CRON, "except": [{"every_seconds": 1, "at": [LATER]}]}, "/except/0", "exactly one"),
    # cron
    ({"name": "t", "schedule": "0 0 31 4 *"}, "/schedule", "never fires"),
    ({"name": "t", "schedule": "0 0 30 2 *"}, "/schedule", "never fires"),
    ({"name": "t", "schedule": "every day"}, "/schedule", ""),
    ({"name": "t", "schedule": "61 * * * *"}, "/schedule", "minute"),
    ({"name": "t", "schedule": ""}, "/schedule", ""),
    ({"name": "t", "schedule": "R * * * *"}, "/schedule", ""),
    ({"name": "t", "schedule": "*" * 10_000}, "/schedule", "10000 characters"),
    ({"name": "t", "schedule": "1," * 5_000 + " * * * *"}, "/schedule", "characters"),
    ({"name": "t", "any_of": [{"schedule": "@daily"}, {"schedule": "* * *"}]},
     "/any_of/1/schedule", ""),
    ({**CRON, "except": [{"schedule": "nope"}]}, "/except/0/schedule", ""),
    ({**CRON, "except": [{"schedule": "* * * * *"}]}, "/except", "never"),
    # intervals and moments
    ({"name": "t", "every_seconds": 0}, "/every_seconds", ">= 0.1"),
    ({"name": "t", "every_seconds": -5}, "/every_seconds", ">= 0.1"),
    ({"name": "t", "every_seconds": 1e300}, "/every_seconds", "<="),
    ({"name": "t", "every_seconds": "5m"}, "/every_seconds", "float"),
    ({"name": "t", "at": [PAST]}, "/at/0", "has passed"),
    ({"name": "t", "at": [NEW_YEAR, PAST]}, "/at/1", "has passed"),
    ({"name": "t", "at": []}, "/at", "length >= 1"),
    ({"name": "t", "at": ["2027-02-29T00:00:00Z"]}, "/at/0", "datetime"),
    ({"name": "t", "at": ["2027-01-01T00:00:00"]}, "/at/0", "timezone"),
    ({"name": "t", "at": ["1969-01-01T00:00:00Z"]}, "/at/0", "before 1970"),
    ({"name": "t", "at": ["9999-12-31T23:59:59-23:59"]}, "/at/0", "beyond the year 9989"),
    ({**CRON, "end_at": "9999-12-31T23:59:59-23:59"}, "/end_at", "beyond"),
    ({**EVERY, "anchor": "9999-12-31T23:59:59Z"}, "/anchor", "beyond"),
    ({**CRON, "blackouts": [window(LATER, "9999-12-31T23:59:59Z")]}, "/blackouts/0/to", "beyond"),
    # zones and clock changes
    ({**CRON, "timezone": "Europe/Belrin"}, "/timezone", "Europe/Berlin"),
    ({**CRON, "timezone": "../../etc/passwd"}, "/timezone", ""),
    ({**CRON, "timezone": ""}, "/timezone", ""),
    ({**CRON, "timezone": "x" * 10_000}, "/timezone", ""),
    ({**CRON, "dst": {"gap": "jump"}}, "/dst/gap", "run, shift, skip"),
    ({**CRON, "dst": {"overlap": "skip"}}, "/dst/overlap", "both, first, second"),
    # policies
    ({**CRON, "overlap": "forbid"}, "/overlap", "buffer_one"),
    ({**CRON, "catchup": "none"}, "/catchup", "all, one, skip"),
    ({**CRON, "catchup_max_runs": 0}, "/catchup_max_runs", ">= 1"),
    ({**CRON, "catchup_window_seconds": 0}, "/catchup_window_seconds", "> 0"),
    ({**CRON, "on_holiday": "skip"}, "/on_holiday", "needs calendars"),
    ({**CRON, "on_holiday": "work"}, "/on_holiday", "previous"),
    ({**CRON, "calendars": ["nowhere"]}, "/calendars/0", "nowhere"),
    ({**CRON, "max_executions": 0}, "/max_executions", ">= 1"),
    ({**CRON, "jitter_seconds": -1}, "/jitter_seconds", ">= 0"),
    # windows, blackouts, bounds
    ({**CRON, "windows": "peak"}, "/windows", "off_peak"),
    ({**CRON, "windows": []}, "/windows", "length >= 1"),
    ({**CRON, "windows": [window("22:00", "25:00")]}, "/windows/0/to", "no time of day"),
    ({**CRON, "windows": [window("7pm", "21:00")]}, "/windows/0/from", "no time of day"),
    ({**CRON, "windows": [window("10:00", "10:00")]}, "/windows/0/to", "no time at all"),
    ({**CRON, "windows": [window("24:00", "10:00")]}, "/windows/0/from", "00:00"),
    ({**CRON, "windows": [window("1:00", "2:00", weekdays=["mo"])]},
     "/windows/0/weekdays/0", "fri"),
    ({**CRON, "windows": [window("1:00", "2:00", weekdays=[])]}, "/windows/0/weekdays", "length"),
    ({"name": "t", "schedule": "0 12 * * *", "windows": "off_peak", "outside_window": "skip"},
     "/windows", "never"),
    ({**CRON, "windows": [window("1:00", "2:00")], "blackouts": [window("0:00", "24:00")]},
     "/blackouts", "never"),
    ({**CRON, "blackouts": [window(NEW_YEAR, PAST)]}, "/blackouts/0/to", "come after"),
    ({**CRON, "blackouts": [window(NEW_YEAR, "12:00")]}, "/blackouts/0/to", "neither"),
    ({**CRON, "blackouts": [window("noon", "12:00")]}, "/blackouts/0/from", "neither"),
    ({**CRON, "blackouts": [window(PAST, LATER, weekdays=["mon"])]}, "/blackouts/0/weekdays", "by"),
    ({**CRON, "start_at": LATER, "end_at": NEW_YEAR}, "/end_at", "come after start_at"),
    ({**CRON, "end_at": PAST}, "/end_at", "has passed"),
    ({"name": "t", "schedule": "0 0 25 12 *", "start_at": NEW_YEAR, "end_at": LATER},
     "/end_at", "never"),
    # the job
    ({"schedule": "* * * * *"}, "/name", "required"),
    ({**CRON, "id": "42"}, "/id", ""),
    ({**CRON, "id": "s42"}, "/id", ""),
    ({**CRON, "id": "a/b"}, "/id", ""),
    ({**CRON, "id": ""}, "/id", ""),
    ({**CRON, "unique_key": "k"}, "/unique_key", "no field"),
    ({**CRON, "note": "x" * 2_000}, "/note", "length"),
    ({**CRON, "note": "why", "paused": False}, "/note", "paused"),
    ({**CRON, "note": "why"}, "/note", "paused"),
    ({**EVERY, "timeout_seconds": 0}, "/timeout_seconds", "> 0"),
]  # fmt: skip


def case_id(case):
    return f"{case[1]} {case[2]}".strip()


@pytest.mark.parametrize(("body", "pointer", "text"), BAD, ids=map(case_id, BAD))
async def test_bad_schedules_are_refused_with_field_and_reason(api, body, pointer, text):
    answer = await api("POST", "/v1/schedules", body)
    assert (answer.status, answer.code, answer.pointer) == (422, "validation", pointer)
    assert text in answer.json["detail"]
    assert len(answer.json["detail"]) < 600
    assert (await api.get("/v1/schedules"))["items"] == []


@pytest.mark.parametrize("way", ["PUT", "preview", "diff", "PATCH"])
async def test_every_way_in_refuses_the_same(api, way):
    await api("POST", "/v1/schedules", {**CRON, "id": "x"})
    method, path = {
        "PUT": ("PUT", "/v1/schedules/x"),
        "preview": ("POST", "/v1/schedules/preview"),
        "diff": ("POST", "/v1/schedules/x/diff"),
        "PATCH": ("PATCH", "/v1/schedules/x"),
    }[way]
    for change, pointer in (
        ({"timezone": "Europe/Belrin"}, "/timezone"),
        ({"overlap": "forbid"}, "/overlap"),
        ({"schedule": "0 0 31 4 *"}, "/schedule"),
        ({"windows": [window("10:00", "10:00")]}, "/windows/0/to"),
        ({"crom": "@daily"}, "/crom"),
    ):
        body = change if way in ("diff", "PATCH") else {**CRON, **change}
        answer = await api(method, path, body)
        assert (answer.status, answer.pointer) == (422, pointer)
    assert (await api.get("/v1/schedules/x"))["version"] == 1


async def test_what_jobs_and_schedules_do_not_share_is_refused(api):
    for body, pointer in (
        ({"name": "t", "timezone": "UTC"}, "/timezone"),
        ({**CRON, "timezone": "Nowhere"}, "/timezone"),
        ({**CRON, "delay_seconds": 5}, "/delay_seconds"),
        ({**CRON, "unique_key": "k"}, "/unique_key"),
        ({"name": "t", "run_at": "9999-12-31T23:59:59-23:59"}, "/run_at"),
        ({"name": "t", "expires_at": "9999-12-31T23:59:59-23:59"}, "/expires_at"),
    ):
        answer = await api("POST", "/v1/jobs", body)
        assert (answer.status, answer.pointer) == (422, pointer)
    lab = await api("POST", "/jobs", {"job_type": "x", "cron_expression": "0 0 31 4 *"})
    assert (lab.status, lab.pointer) == (422, "/cron_expression")
