"""One job at a time, as a client sees it."""


async def test_a_submitted_job_is_shown_with_everything_it_was_given(client):
    answer = await client.post("/v1/jobs", json={"name": "mail.send", "payload": {"to": "a"}})
    assert answer.status == 201
    job = await answer.json()
    assert answer.headers["Location"] == "/v1/jobs/1"
    assert (job["job_id"], job["id"], job["status"], job["reason"]) == (
        "1",
        "1",
        "pending",
        "ready",
    )
    assert job["payload"] == {"to": "a"}
    assert job["created_at"] == "2026-11-18T11:06:40.000Z"
    assert (await (await client.get("/v1/jobs/1")).json()) == job
