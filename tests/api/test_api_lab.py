"""The unversioned routes behave as the lab's exercises expect."""

import pytest

JOB = {"job_type": "email", "execution_time_ms": 20, "fail_rate": 0.5, "priority": "high"}


async def test_any_job_type_runs_as_simulate(api, node):
    answer = await api("POST", "/jobs", JOB)
    assert (answer.status, answer.headers["Location"]) == (201, "/jobs/1")
    job = answer.json
    assert (job["job_id"], job["job_type"], job["status"]) == ("1", "email", "pending")
    assert (job["execution_time_ms"], job["fail_rate"], job["priority"]) == (20, 0.5, 3)
    row = node.raft.state.tables.jobs[1]
    assert row.kind.spec.name == "simulate"
    assert row.payload == b'{"job_type":"email","execution_time_ms":20,"fail_rate":0.5}'
    assert await api.get("/jobs/1") == job


async def test_the_life_of_a_lab_job(api, node):
    await api("POST", "/jobs", JOB)
    worker = await api.worker(tasks=("simulate",))
    await worker.take()
    running = await api.get("/jobs/1")
    assert (running["status"], running["worker_id"], running["attempt"]) == ("running", "w1", 1)
    await node.desk.complete(worker.id, [1], [1], None, None)
    done = await api.get("/jobs/1")
    assert (done["status"], done["error_message"]) == ("completed", None)
    assert done["started_at"] and done["finished_at"]


async def test_a_delayed_lab_job_shows_its_next_run(api):
    job = (await api("POST", "/jobs", {**JOB, "delay_seconds": 60, "payload": {"x": 1}})).json
    assert job["next_run"] == job["scheduled_at"] == "2026-11-18T11:07:40.000Z"
    assert (await api.get("/v1/jobs/1"))["payload"]["payload"] == {"x": 1}


async def test_a_cron_lab_job_is_a_schedule(api):
    answer = await api("POST", "/jobs", {**JOB, "cron_expression": "*/10 * * * *"})
    assert answer.status == 201
    job_id = answer.json["job_id"]
    shown = await api.get(f"/jobs/{job_id}")
    assert (shown["job_type"], shown["cron_expression"]) == ("email", "*/10 * * * *")
    assert shown["next_run"] == "2026-11-18T11:10:00.000Z"
    assert (shown["run_count"], shown["last_job_id"]) == (0, None)
    await api("POST", f"/v1/schedules/{job_id}/trigger")
    shown = await api.get(f"/jobs/{job_id}")
    assert (shown["run_count"], shown["last_job_id"]) == (1, "1")


async def test_lists_are_plain(api):
    await api("POST", "/jobs", JOB)
    await api.submit()
    await api("POST", "/v1/jobs/2/cancel")
    assert [job["job_id"] for job in await api.get("/jobs")] == ["2", "1"]
    pending = await api.get("/jobs?status=pending")
    assert [job["job_type"] for job in pending] == ["email"]
    await api.worker(slots=3)
    workers = await api.get("/workers")
    assert [(w["worker_id"], w["slots"], w["status"]) for w in workers] == [("w1", 3, "active")]
    assert (await api.get("/stats"))["jobs_by_status"]["pending"] == 1


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"job_type": ""}, "/job_type"),
        ({"fail_rate": 1.5}, "/fail_rate"),
        ({"execution_time_ms": -1}, "/execution_time_ms"),
        ({"execution_time": 1}, "/execution_time"),
        ({"cron_expression": "61 * * * *"}, "/cron_expression"),
        ({"cron_expression": "* * * * *", "delay_seconds": 1}, "/delay_seconds"),
        ({"delay_seconds": 1e300}, "/delay_seconds"),
    ],
)
async def test_wrong_lab_jobs_are_pointed_at(api, change, pointer):
    answer = await api("POST", "/jobs", {**JOB, **change})
    assert (answer.status, answer.code, answer.pointer) == (422, "validation", pointer)


@pytest.mark.parametrize("job_id", ["9", "nope"])
async def test_no_lab_job_is_unknown(api, job_id):
    answer = await api("GET", f"/jobs/{job_id}")
    assert (answer.status, answer.code) == (404, "unknown_job")
