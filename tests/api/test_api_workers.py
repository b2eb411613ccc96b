"""Workers that speak plain HTTP, and looking after workers of any kind."""

import asyncio

import pytest

OFFER = {"name": "sh", "slots": 3, "queues": ["default"], "tasks": ["t"], "labels": {"os": "linux"}}


async def enlist(api, **changes):
    answer = await api("POST", "/v1/workers", {**OFFER, **changes})
    assert answer.status == 201, answer
    assert answer.json["ttl_seconds"] == 10.0
    worker_id = answer.json["worker_id"]
    assert answer.headers["Location"] == f"/v1/workers/{worker_id}"
    return worker_id


async def poll(api, worker_id, **body):
    answer = await api("POST", f"/v1/workers/{worker_id}/poll", body)
    assert answer.status == 200, answer
    return answer.json["jobs"]


async def test_a_polling_worker_takes_and_completes_jobs(api):
    worker_id = await enlist(api)
    job_id = await api.submit(payload={"a": 1}, timeout_seconds=7, total_timeout_seconds=60)
    jobs = await poll(api, worker_id, max=5, wait=5)
    assert jobs == [
        {
            "job_id": job_id,
            "attempt": 1,
            "name": "t",
            "queue": "default",
            "payload": {"a": 1},
            "timeout_seconds": 7.0,
            "deadline": "2026-11-18T11:07:40.000Z",
            "failures": 0,
            "max_retries": 3,
        }
    ]
    shown = await api.get(f"/v1/workers/{worker_id}")
    assert (shown["protocol"], shown["running"], shown["running_jobs"]) == ("poll", 1, [job_id])
    assert (shown["name"], shown["labels"], shown["slots"]) == ("sh", {"os": "linux"}, 3)
    body = {"attempt": 1, "output": [1, 2], "worker_id": worker_id}
    assert (await api("PUT", f"/v1/jobs/{job_id}/complete", body)).status == 204
    job = await api.get(f"/v1/jobs/{job_id}")
    assert (job["status"], job["output"], job["worker_id"]) == ("completed", [1, 2], worker_id)
    late = await api("PUT", f"/v1/jobs/{job_id}/complete", body)
    assert (late.status, late.code) == (409, "stale_attempt")


async def test_a_fetched_job_that_never_arrived_is_taken_back_after_one_ttl(api, node):
    registered = (await api("POST", "/v1/workers", {"name": "p", "slots": 2, "tasks": ["t"]})).json
    beat = f"/v1/workers/{registered['worker_id']}/heartbeat"
    job_id = await api.submit()
    [job] = await poll(api, registered["worker_id"], max=1, wait=5)
    node.clock.advance(9_000)
    await api("POST", beat, {"running": []})
    assert (await api.get(f"/v1/jobs/{job_id}"))["status"] == "running"
    node.clock.advance(2_000)
    held = {"job_id": job_id, "attempt": job["attempt"]}
    await api("POST", beat, {"running": [held]})
    assert (await api.get(f"/v1/jobs/{job_id}"))["status"] == "running"
    await api("POST", beat, {"running": [{**held, "attempt": 7}]})
    view = await api.get(f"/v1/jobs/{job_id}")
    assert (view["status"], view["reason"], view["failures"]) == ("pending", "ready", 0)


async def test_polling_waits_for_the_first_job(api):
    worker_id = await enlist(api)
    assert await poll(api, worker_id) == []
    waiting = asyncio.create_task(poll(api, worker_id, max=2, wait=20))
    await asyncio.sleep(0.02)
    job_id = await api.submit()
    assert [job["job_id"] for job in await waiting] == [job_id]


async def test_a_heartbeat_names_what_to_stop(api):
    worker_id = await enlist(api)
    ids = [await api.submit() for _ in range(2)]
    taken = []
    while len(taken) < 2:
        taken += await poll(api, worker_id, max=2, wait=5)
    await api("POST", f"/v1/jobs/{ids[0]}/cancel")
    running = [{"job_id": job_id, "attempt": 1} for job_id in ids]
    beat = await api("POST", f"/v1/workers/{worker_id}/heartbeat", {"running": running})
    cancelled = [{"job_id": ids[0], "attempt": 1}]
    assert beat.json == {"cancel": cancelled, "stop": [], "drain": False}
    await api("POST", f"/v1/workers/{worker_id}/drain")
    beat = await api("POST", f"/v1/workers/{worker_id}/heartbeat", {"running": running[1:]})
    assert beat.json == {"cancel": [], "stop": [], "drain": True}


async def test_leaving_hands_jobs_back(api):
    worker_id = await enlist(api)
    job_id = await api.submit()
    await poll(api, worker_id, wait=5)
    assert (await api("DELETE", f"/v1/workers/{worker_id}")).status == 204
    job = await api.get(f"/v1/jobs/{job_id}")
    assert (job["status"], job["failures"]) == ("pending", 0)
    gone = await api("DELETE", f"/v1/workers/{worker_id}")
    assert (gone.status, gone.code) == (404, "unknown_worker")


async def running_job(api, **fields):
    """A job that some worker is at."""
    job_id = await api.submit(**fields)
    worker = await api.worker()
    await worker.take()
    return job_id


async def test_a_reported_failure_is_retried_while_it_may_be(api):
    job_id = await running_job(api, max_retries=1)
    body = {"attempt": 1, "error": "no disk", "error_type": "OSError"}
    assert (await api("PUT", f"/v1/jobs/{job_id}/fail", body)).status == 204
    job = await api.get(f"/v1/jobs/{job_id}")
    assert (job["status"], job["reason"], job["failures"]) == ("pending", "retrying", 1)
    assert (job["error_message"], job["error_type"]) == ("no disk", "OSError")


async def test_a_failure_that_is_final_is_not_retried(api):
    job_id = await running_job(api)
    body = {"attempt": 1, "error": "never", "retryable": False}
    assert (await api("PUT", f"/v1/jobs/{job_id}/fail", body)).status == 204
    assert (await api.get(f"/v1/jobs/{job_id}"))["status"] == "failed"


async def test_an_attempt_can_be_handed_back(api):
    job_id = await running_job(api)
    assert (await api("PUT", f"/v1/jobs/{job_id}/release", {"attempt": 1})).status == 204
    job = await api.get(f"/v1/jobs/{job_id}")
    assert job["failures"] == 0
    events = (await api.get(f"/v1/jobs/{job_id}/timeline"))["events"]
    assert "released" in [event["event"] for event in events]


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("complete", {"output": None}),
        ("fail", {"error": "x"}),
        ("progress", {"fraction": 1}),
        ("release", {}),
    ],
)
async def test_only_the_current_attempt_counts(api, action, body):
    job_id = await running_job(api)
    stale = await api("PUT", f"/v1/jobs/{job_id}/{action}", {**body, "attempt": 2})
    assert (stale.status, stale.code) == (409, "stale_attempt")
    unknown = await api("PUT", f"/v1/jobs/999/{action}", {**body, "attempt": 1})
    assert (unknown.status, unknown.code) == (404, "unknown_job")
    malformed = await api("PUT", f"/v1/jobs/{job_id}/{action}", {**body, "attempt": 0})
    assert (malformed.status, malformed.pointer) == (422, "/attempt")
    missing = await api("PUT", f"/v1/jobs/{job_id}/{action}", body)
    assert (missing.status, missing.pointer) == (422, "/attempt")
    assert (await api.get(f"/v1/jobs/{job_id}"))["status"] == "running"


async def test_another_worker_cannot_complete_the_job(api):
    job_id = await running_job(api)
    body = {"attempt": 1, "worker_id": "w99"}
    assert (await api("PUT", f"/v1/jobs/{job_id}/complete", body)).code == "stale_attempt"


async def test_an_output_beyond_the_limit_is_refused(api, node):
    job_id = await running_job(api)
    large = "x" * node.settings.output_max_bytes
    answer = await api("PUT", f"/v1/jobs/{job_id}/complete", {"attempt": 1, "output": large})
    assert (answer.status, answer.code, answer.pointer) == (413, "payload_too_large", "/output")


@pytest.mark.parametrize(
    ("method", "action"),
    [("GET", ""), ("DELETE", ""), ("POST", "/drain"), ("POST", "/poll"), ("POST", "/heartbeat")],
)
async def test_no_worker_is_unknown(api, method, action):
    for worker_id in ("w99", "7", "wx", "w", "w٣", "w" + "9" * 30):
        answer = await api(method, f"/v1/workers/{worker_id}{action}")
        assert (answer.status, answer.code, worker_id) == (404, "unknown_worker", worker_id)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [({"slots": 0}, "/slots"), ({"queues": []}, "/queues"), ({"tasks": [""]}, "/tasks/0"),
     ({"tasks": []}, "/tasks"), ({"labels": {"a": 1}}, "/labels/..."), ({"slot": 1}, "/slot")],
)  # fmt: skip
async def test_wrong_offers_are_pointed_at(api, change, pointer):
    answer = await api("POST", "/v1/workers", {**OFFER, **change})
    assert (answer.status, answer.code, answer.pointer) == (422, "validation", pointer)


async def test_workers_are_listed_page_by_page(api):
    ids = [await enlist(api, name=f"p{n}") for n in range(5)]
    found, cursor, pages = [], "", 0
    while cursor is not None:
        page = await api.get(f"/v1/workers?limit=2&cursor={cursor}")
        found += [item["worker_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        pages += 1
    assert (found, pages) == (ids, 3)
    assert (await api("GET", "/v1/workers?limit=0")).status == 422
    assert (await api("GET", "/v1/workers?cursor=nonsense")).status == 422
