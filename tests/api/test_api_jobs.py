"""One job at a time, as a client sees it."""

import asyncio

import msgspec
import pytest
from api_fakes import until

from cluster.actors.services import AttemptError


async def test_a_submitted_job_is_shown_with_what_it_was_given(api):
    answer = await api("POST", "/v1/jobs", {"name": "mail.send", "payload": {"to": "a"}})
    assert answer.status == 201
    assert answer.headers["Location"] == "/v1/jobs/1"
    job = answer.json
    assert (job["job_id"], job["id"], job["status"], job["reason"]) == (
        "1",
        "1",
        "pending",
        "no_worker",
    )
    assert job["payload"] == {"to": "a"}
    assert job["created_at"] == "2026-11-18T11:06:40.000Z"
    assert job["retry"] == {
        "strategy": "exponential",
        "base_seconds": 1.0,
        "max_seconds": 300.0,
        "jitter": True,
    }
    assert (job["queue"], job["priority"], job["max_retries"]) == ("default", 5, 3)
    assert (job["timeout_seconds"], job["output"], job["worker_id"]) == (3600.0, None, None)
    assert await api.get("/v1/jobs/1") == job


async def test_every_field_of_a_request_comes_back(api):
    job_id = await api.submit(
        queue="mail",
        priority="high",
        delay_seconds=60,
        max_retries=7,
        retry={"strategy": "fixed", "base_seconds": 2.5, "max_seconds": 2.5, "jitter": False},
        timeout_seconds=12.5,
        queue_timeout_seconds=30,
        total_timeout_seconds=600,
        unique_key="order-1",
        tags=["a", "b"],
    )
    job = await api.get(f"/v1/jobs/{job_id}")
    assert (job["queue"], job["priority"], job["max_retries"]) == ("mail", 3, 7)
    assert (job["status"], job["reason"]) == ("pending", "scheduled")
    assert job["next_run"] == job["scheduled_at"] == "2026-11-18T11:07:40.000Z"
    assert job["retry"]["strategy"] == "fixed" and job["retry"]["jitter"] is False
    assert (job["timeout_seconds"], job["total_timeout_seconds"]) == (12.5, 600.0)
    assert job["expires_at"] == "2026-11-18T11:08:10.000Z"
    assert (job["unique_key"], job["tags"]) == ("order-1", ["a", "b"])


async def test_run_at_takes_any_zone_and_the_past_second_means_now(api):
    later = await api.submit(run_at="2026-11-18T13:06:40+01:00")
    assert (await api.get(f"/v1/jobs/{later}"))["scheduled_at"] == "2026-11-18T12:06:40.000Z"
    just = await api.submit(run_at="2026-11-18T11:06:39.5Z")
    assert (await api.get(f"/v1/jobs/{just}"))["reason"] == "no_worker"


@pytest.mark.parametrize("command", ["echo hi", ["echo", "hi"]])
async def test_the_command_shorthand_is_a_job_of_task_command(api, command):
    answer = await api("POST", "/v1/jobs", {"command": command})
    assert answer.status == 201
    assert (answer.json["name"], answer.json["payload"]) == ("command", {"command": command})


async def test_a_messagepack_payload_becomes_json(api):
    body = msgspec.msgpack.encode({"name": "t", "payload": {"n": [1, 2.5, None], 7: b"\x00\x01"}})
    answer = await api("POST", "/v1/jobs", body, type="application/msgpack")
    assert answer.status == 201
    assert answer.json["payload"] == {"n": [1, 2.5, None], "7": "AAE="}


async def test_a_payload_is_not_touched_on_its_way(api, node):
    text = b'{"a" : 1.50, "b":"\\u00e9", "big": 123456789012345678901234567890}'
    await api("POST", "/v1/jobs", b'{"name":"t","payload":' + text + b"}")
    assert node.raft.state.tables.jobs[1].payload == text
    answer = await api("GET", "/v1/jobs/1")
    assert text in answer.raw


async def test_a_unique_key_returns_rejects_or_replaces(api):
    first = await api.submit(unique_key="k")
    again = await api("POST", "/v1/jobs", {"name": "t", "unique_key": "k"})
    assert (again.status, again.json["job_id"]) == (200, first)
    rejected = await api(
        "POST", "/v1/jobs", {"name": "t", "unique_key": "k", "on_conflict": "reject"}
    )
    assert (rejected.status, rejected.code, rejected.pointer) == (409, "conflict", "/unique_key")
    replaced = await api(
        "POST", "/v1/jobs", {"name": "t", "unique_key": "k", "on_conflict": "replace"}
    )
    assert replaced.status == 201
    assert (await api.get(f"/v1/jobs/{first}"))["status"] == "cancelled"


async def test_a_ready_job_that_no_worker_offers_says_so(api):
    job_id = await api.submit()
    assert (await api.get(f"/v1/jobs/{job_id}"))["reason"] == "no_worker"
    await api.worker()
    other = await api.submit(name="unheard-of")
    assert (await api.get(f"/v1/jobs/{other}"))["reason"] == "no_worker"
    (listed,) = (await api.get("/v1/jobs?name=unheard-of"))["items"]
    assert listed["reason"] == "no_worker"


async def finish(api, node, job_id):
    worker = await api.worker()
    await worker.take()
    await node.desk.complete(worker.id, [int(job_id)], [1], None, None)
    assert (await api.get(f"/v1/jobs/{job_id}"))["status"] == "completed"


async def test_a_unique_key_outlives_its_job_for_a_day(api, node):
    first = await api.submit(unique_key="k")
    await finish(api, node, first)
    again = await api("POST", "/v1/jobs", {"name": "t", "unique_key": "k"})
    assert (again.status, again.json["job_id"], again.json["status"]) == (200, first, "completed")
    node.clock.advance(86_400_000 + 1_000)
    later = await api("POST", "/v1/jobs", {"name": "t", "unique_key": "k"})
    assert later.status == 201
    assert later.json["job_id"] != first


async def test_a_unique_key_can_be_freed_with_its_job(api, node):
    first = await api.submit(unique_key="k", unique_ttl_seconds=0)
    await finish(api, node, first)
    assert (await api("POST", "/v1/jobs", {"name": "t", "unique_key": "k"})).status == 201
    lonely = await api("POST", "/v1/jobs", {"name": "t", "unique_ttl_seconds": 5})
    assert (lonely.status, lonely.pointer) == (422, "/unique_ttl_seconds")


async def test_a_job_lives_and_ends_in_the_history(api, node):
    job_id = await api.submit(payload=[1])
    worker = await api.worker()
    await worker.take()
    running = await api.get(f"/v1/jobs/{job_id}")
    assert (running["status"], running["attempt"], running["worker_id"]) == ("running", 1, "w1")
    assert running["started_at"] is not None
    await node.desk.complete(worker.id, [int(job_id)], [1], [b'{"ok":true}'], ["line"])
    done = await api.get(f"/v1/jobs/{job_id}")
    assert (done["status"], done["output"]) == ("completed", {"ok": True})
    assert done["finished_at"] is not None and done["payload"] == [1]
    result = await api.get(f"/v1/jobs/{job_id}/result")
    assert (result["finished"], result["output"]) == (True, {"ok": True})
    await node.history.flushed(node.raft.applied_index)
    assert await api.get(f"/v1/jobs/{job_id}") == done


async def test_output_that_is_no_json_is_shown_as_text(api, node):
    job_id = await api.submit()
    worker = await api.worker()
    await worker.take()
    await node.desk.complete(worker.id, [int(job_id)], [1], [b'{"broken'], None)
    assert (await api.get(f"/v1/jobs/{job_id}"))["output"] == '{"broken'


async def test_wait_answers_when_the_job_is_finished(api, node):
    job_id = await api.submit()
    worker = await api.worker()
    await worker.take()
    waiting = asyncio.create_task(api.get(f"/v1/jobs/{job_id}?wait=30"))
    await until(lambda: node.waiters._waiting)
    await node.desk.complete(worker.id, [int(job_id)], [1], None, None)
    assert (await waiting)["status"] == "completed"


async def test_wait_ends_with_the_time(api):
    job_id = await api.submit()
    assert (await api.get(f"/v1/jobs/{job_id}?wait=0.01"))["status"] == "pending"


async def test_progress_of_a_running_job_is_shown(api, node):
    job_id = await api.submit()
    worker = await api.worker()
    await worker.take()
    body = {"attempt": 1, "fraction": 0.5, "message": "half"}
    assert (await api("PUT", f"/v1/jobs/{job_id}/progress", body)).status == 204
    progress = (await api.get(f"/v1/jobs/{job_id}"))["progress"]
    assert progress == {"fraction": 0.5, "message": "half"}


async def test_cancel_ends_a_job_once(api):
    job_id = await api.submit()
    cancelled = await api("POST", f"/v1/jobs/{job_id}/cancel")
    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    again = await api("POST", f"/v1/jobs/{job_id}/cancel")
    assert (again.status, again.code) == (409, "not_cancellable")


async def test_cancel_stops_a_running_job(api):
    job_id = await api.submit()
    worker = await api.worker()
    await worker.take()
    await api("POST", f"/v1/jobs/{job_id}/cancel")
    assert worker.cancelled == [(int(job_id), 1)]


async def test_a_failed_job_can_be_retried_with_changes(api):
    job_id = await api.bury(payload={"a": 1})
    failed = await api.get(f"/v1/jobs/{job_id}")
    assert (failed["status"], failed["error_type"]) == ("failed", "ValueError")
    body = {"payload": {"a": 2}, "queue": "slow", "priority": "low", "delay_seconds": 10}
    retried = await api("POST", f"/v1/jobs/{job_id}/retry", body)
    assert retried.status == 200
    job = retried.json
    assert (job["job_id"], job["status"], job["reason"]) == (job_id, "pending", "scheduled")
    assert (job["payload"], job["queue"], job["priority"]) == ({"a": 2}, "slow", 8)
    refused = await api("POST", f"/v1/jobs/{job_id}/retry")
    assert (refused.status, refused.code) == (409, "not_retryable")


async def test_live_and_finished_jobs_can_be_cloned(api):
    job_id = await api.submit(payload={"a": 1}, tags=["x"], max_retries=9)
    clone = await api("POST", f"/v1/jobs/{job_id}/clone")
    assert (clone.status, clone.json["job_id"]) == (201, "2")
    assert clone.headers["Location"] == "/v1/jobs/2"
    await api("POST", f"/v1/jobs/{job_id}/cancel")
    again = await api("POST", f"/v1/jobs/{job_id}/clone", {"payload": [], "max_retries": 0})
    assert (again.json["payload"], again.json["max_retries"]) == ([], 0)
    assert again.json["tags"] == ["x"]


async def test_the_timeline_tells_the_life_of_a_job(api, node):
    job_id = await api.submit(retry={"base_seconds": 0.001, "max_seconds": 0.001})
    worker = await api.worker()
    await worker.take()
    await node.desk.fail(worker.id, [AttemptError(int(job_id), 1, "OSError", "gone", log="l1")])
    node.clock.advance(100)
    node.proposer.tick()
    await worker.take()
    await node.desk.complete(worker.id, [int(job_id)], [2], None, ["l2"])
    events = (await api.get(f"/v1/jobs/{job_id}/timeline"))["events"]
    told = [(e["event"], e["attempt"], e["worker_id"], e["detail"]) for e in events]
    assert told == [
        ("created", None, None, None),
        ("started", 1, "w1", None),
        ("failed", 1, "w1", "OSError: gone"),
        ("started", 2, "w1", None),
        ("completed", 2, None, None),
    ]
    logs = await api.get(f"/v1/jobs/{job_id}/logs")
    assert logs == {"items": [{"attempt": 1, "text": "l1"}, {"attempt": 2, "text": "l2"}]}


async def test_the_timeline_of_a_dead_letter_ends_there(api):
    job_id = await api.bury()
    events = (await api.get(f"/v1/jobs/{job_id}/timeline"))["events"]
    assert [e["event"] for e in events] == ["created", "started", "failed", "dead_letter"]


async def test_every_answer_names_leader_and_index(api, node):
    job_id = await api.submit()
    for path in (f"/v1/jobs/{job_id}", "/v1/jobs/999", "/nowhere", "/livez", "/docs"):
        answer = await api("GET", path)
        assert answer.headers["X-Quorate-Leader"] == node.raft.leader_http
        assert answer.headers["X-Quorate-Index"] == str(node.raft.applied_index)


async def test_head_is_get_without_a_body(api):
    answer = await api("HEAD", "/livez")
    assert (answer.status, answer.raw) == (200, b"")
