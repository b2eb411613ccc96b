"""A request with an idempotency key happens once, however often it is sent."""

import msgspec
import pytest
from api_fakes import serving

T = {"name": "t"}


async def test_a_repeated_submission_gets_the_first_answer(api, node):
    first = await api("POST", "/v1/jobs", T, Idempotency_Key="k1")
    again = await api("POST", "/v1/jobs", T, Idempotency_Key="k1")
    assert (first.status, again.status) == (201, 201)
    assert first.json == again.json
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert len(node.raft.state.tables.jobs) == 1


@pytest.mark.parametrize("path", ["/v1/jobs", "/jobs"])
async def test_the_same_key_for_something_else_is_a_mismatch(api, path):
    await api("POST", "/v1/jobs", T, Idempotency_Key="k1")
    body = {"name": "other"} if path == "/v1/jobs" else {"job_type": "t"}
    answer = await api("POST", path, body, Idempotency_Key="k1")
    assert (answer.status, answer.code) == (422, "idempotency_mismatch")


async def test_a_repeated_batch_gets_the_same_ids(api, node):
    jobs = [T, {"bad": 1}, T]
    first = await api("POST", "/v1/jobs/batch", jobs, Idempotency_Key="k1")
    again = await api("POST", "/v1/jobs/batch", jobs, Idempotency_Key="k1")
    assert (again.status, again.json) == (207, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(node.raft.state.tables.jobs) == 2
    minimal = await api(
        "POST", "/v1/jobs/batch", jobs, Idempotency_Key="k1", Prefer="return=minimal"
    )
    assert (minimal.json["first"], minimal.json["last"]) == ("1", "2")


async def test_a_repetition_counts_although_its_moment_has_passed(api, node):
    body = {**T, "run_at": "2026-11-18T11:06:50Z"}
    first = await api("POST", "/v1/jobs", body, Idempotency_Key="k1")
    batch = await api("POST", "/v1/jobs/batch", [body, T, body], Idempotency_Key="k2")
    alone = await api("POST", "/v1/jobs/batch", [body], Idempotency_Key="k3")
    node.clock.advance(60_000)
    again = await api("POST", "/v1/jobs", body, Idempotency_Key="k1")
    assert (again.status, again.json["job_id"]) == (201, first.json["job_id"])
    again = await api("POST", "/v1/jobs/batch", [body, T, body], Idempotency_Key="k2")
    assert (again.status, again.json) == (201, batch.json)
    again = await api("POST", "/v1/jobs/batch", [body], Idempotency_Key="k3")
    assert again.json["ids"] == alone.json["ids"]
    fresh = await api("POST", "/v1/jobs", body, Idempotency_Key="k4")
    assert (fresh.status, fresh.code, fresh.pointer) == (422, "validation", "/run_at")


async def test_a_repetition_counts_although_the_queue_is_full(tmp_path):
    async with serving(tmp_path, queue_jobs_max=1) as api:
        first = await api("POST", "/v1/jobs", T, Idempotency_Key="k1")
        again = await api("POST", "/v1/jobs", T, Idempotency_Key="k1")
        assert (again.status, again.json) == (201, first.json)
        assert (await api("POST", "/v1/jobs", T, Idempotency_Key="k2")).status == 429


async def test_a_key_is_forgotten_after_its_time(api, node):
    ttl = {"Idempotency_Key": "k1", "X_Quorate_Key_TTL": "5"}
    await api("POST", "/v1/jobs", T, **ttl)
    node.clock.advance(7_000)
    again = await api("POST", "/v1/jobs", T, **ttl)
    assert (again.json["job_id"], "Idempotency-Replayed" in again.headers) == ("2", False)


async def test_a_key_lives_no_longer_than_the_cluster_allows(tmp_path):
    async with serving(tmp_path, idempotency_ttl_seconds=3) as api:
        ttl = {"Idempotency_Key": "k1", "X_Quorate_Key_TTL": "1000000"}
        await api("POST", "/v1/jobs", T, **ttl)
        api.node.clock.advance(5_000)
        assert (await api("POST", "/v1/jobs", T, **ttl)).json["job_id"] == "2"


@pytest.mark.parametrize(
    "headers",
    [{"Idempotency_Key": "x" * 256}, {"Idempotency_Key": ""}]
    + [{"Idempotency_Key": "k", "X_Quorate_Key_TTL": ttl} for ttl in ("0", "-1", "soon", "inf")],
)
async def test_malformed_key_headers_are_refused(api, headers):
    answer = await api("POST", "/v1/jobs", T, **headers)
    assert (answer.status, answer.code) == (422, "validation")


async def test_a_clone_with_a_key_is_made_once(api):
    job_id = await api.submit()
    first = await api("POST", f"/v1/jobs/{job_id}/clone", Idempotency_Key="k1")
    again = await api("POST", f"/v1/jobs/{job_id}/clone", Idempotency_Key="k1")
    assert first.json["job_id"] == again.json["job_id"] == "2"


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/schedules"])
async def test_a_schedule_with_a_key_is_made_once(api, path):
    body = {**T, "schedule": "*/5 * * * *"}
    first = await api("POST", path, body, Idempotency_Key="k1")
    again = await api("POST", path, body, Idempotency_Key="k1")
    assert (first.status, again.status, again.json) == (201, 201, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await api("POST", path, {**body, "schedule": "0 * * * *"}, Idempotency_Key="k1")
    assert (other.status, other.code) == (422, "idempotency_mismatch")


async def test_the_body_counts_byte_by_byte(api):
    first = await api("POST", "/v1/jobs", msgspec.json.encode(T), Idempotency_Key="k1")
    assert first.status == 201
    spaced = await api("POST", "/v1/jobs", b'{"name": "t"}', Idempotency_Key="k1")
    assert spaced.code == "idempotency_mismatch"
