"""Lists and bulk operations see live jobs, dead letters and history as one."""

import pytest

from cluster.actors.services import AttemptError
from cluster.api import bulk


async def finish(api, count, **fields):
    """That many jobs, submitted and completed."""
    worker = await api.worker(slots=count)
    ids = [int(await api.submit(**fields)) for _ in range(count)]
    taken = []
    while len(taken) < count:
        taken += [job.job_id for job in await worker.take()]
    assert sorted(taken) == ids
    await api.node.desk.complete(worker.id, ids, [1] * count, None, None)
    await api.node.desk.leave(worker.id)
    return ids


async def ids_of(api, query, limit=2):
    """All pages."""
    found, cursor = [], ""
    while True:
        page = await api.get(f"/v1/jobs?limit={limit}&{query}&cursor={cursor}")
        assert len(page["items"]) <= limit
        found += [int(job["job_id"]) for job in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def test_pages_join_live_dead_and_finished_jobs_newest_first(api, node):
    done = await finish(api, 3)
    dead = int(await api.bury())
    await node.history.flushed(node.raft.applied_index)
    more = await finish(api, 2)
    live = [int(await api.submit()) for _ in range(3)]
    everything = [*done, dead, *more, *live]
    for limit in (1, 2, 3, 50):
        assert await ids_of(api, "", limit) == everything[::-1]
    assert await ids_of(api, "status=completed") == [*done, *more][::-1]
    assert await ids_of(api, "status=failed") == [dead]
    assert await ids_of(api, "status=pending") == live[::-1]
    assert await ids_of(api, "status=running") == []


async def test_lists_filter_by_queue_name_and_tag(api):
    a = int(await api.submit(queue="q", tags=["red", "blue"]))
    b = int(await api.submit(queue="q"))
    c = int(await api.submit(name="other", tags=["red"]))
    await api("POST", f"/v1/jobs/{b}/cancel")
    assert await ids_of(api, "queue=q") == [b, a]
    assert await ids_of(api, "name=other") == [c]
    assert await ids_of(api, "tag=red") == [c, a]
    assert await ids_of(api, "tag=red&queue=q") == [a]
    assert await ids_of(api, "queue=q&status=cancelled") == [b]


async def test_a_revived_job_is_listed_once_as_it_is_now(api, node):
    dead = await api.bury()
    await node.history.flushed(node.raft.applied_index)
    await api("POST", f"/v1/jobs/{dead}/retry")
    assert await ids_of(api, "status=failed") == []
    assert await ids_of(api, "") == [int(dead)]
    assert (await api.get(f"/v1/jobs/{dead}"))["status"] == "pending"


async def test_stale_lists_skip_nothing_when_rows_are_dropped_from_a_page(api, node):
    dead = [int(await api.bury()) for _ in range(4)]
    await node.history.flushed(node.raft.applied_index)
    for job_id in dead[1:]:
        await api("POST", f"/v1/jobs/{job_id}/retry")
    assert await ids_of(api, "status=failed", 1) == dead[:1]


async def test_bulk_by_ids_answers_each(api):
    done = (await finish(api, 1))[0]
    live = int(await api.submit())
    body = {"ids": [str(live), done, "99", "x"]}
    statuses = (await api("POST", "/v1/jobs/status", body)).json["items"]
    assert [(i["id"], i["ok"], i.get("status"), i.get("code")) for i in statuses] == [
        (str(live), True, "pending", None),
        (str(done), True, "completed", None),
        ("99", False, None, "unknown_job"),
        ("x", False, None, "unknown_job"),
    ]
    cancelled = (await api("POST", "/v1/jobs/cancel", body)).json["items"]
    assert [(i["ok"], i.get("status") or i["code"]) for i in cancelled] == [
        (True, "cancelled"),
        (False, "not_cancellable"),
        (False, "unknown_job"),
        (False, "unknown_job"),
    ]
    retried = (await api("POST", "/v1/jobs/retry", body)).json["items"]
    assert [i["code"] for i in retried] == ["not_retryable"] * 2 + ["unknown_job"] * 2


async def test_bulk_by_filter_works_in_rounds(api, monkeypatch):
    monkeypatch.setattr(bulk, "IDS_MAX", 3)
    for _ in range(5):
        await api.submit(tags=["old"])
    keep = await api.submit()
    body = {"filter": {"tag": "old"}}
    first = (await api("POST", "/v1/jobs/cancel", body)).json
    assert (len(first["items"]), first["more"]) == (3, True)
    second = (await api("POST", "/v1/jobs/cancel", body)).json
    assert (len(second["items"]), second["more"]) == (2, False)
    assert await ids_of(api, "status=pending") == [int(keep)]
    shown = (await api("POST", "/v1/jobs/status", {"filter": {"status": "cancelled"}})).json
    assert (len(shown["items"]), shown["more"]) == (3, True)


async def test_bulk_retry_by_filter_takes_dead_letters(api):
    dead = [await api.bury(queue="default", tags=["x"]) for _ in range(2)]
    other = await api.bury()
    answer = (await api("POST", "/v1/jobs/retry", {"filter": {"tag": "x"}})).json
    assert sorted(i["id"] for i in answer["items"]) == sorted(dead)
    assert await ids_of(api, "status=failed") == [int(other)]


@pytest.mark.parametrize("action", ["cancel", "retry", "status"])
async def test_bulk_needs_ids_or_a_filter(api, action):
    for body, pointer in (
        ({}, "/ids"),
        ({"ids": ["1"], "filter": {"queue": "q"}}, "/ids"),
        ({"all": True}, "/all"),
        ({"filter": {}}, "/filter"),
        ({"filter": {"state": "x"}}, "/filter/state"),
        ({"ids": [1.5]}, "/ids/0"),
    ):
        answer = await api("POST", f"/v1/jobs/{action}", body)
        assert (answer.status, answer.code, answer.pointer) == (422, "validation", pointer)


async def test_dead_letters_are_listed_replayed_and_purged(api, node):
    dead = [await api.bury(payload=n) for n in range(4)]
    page = await api.get("/v1/dlq?limit=3")
    assert [job["job_id"] for job in page["items"]] == dead[:0:-1]
    rest = await api.get(f"/v1/dlq?limit=3&cursor={page['next_cursor']}")
    assert ([job["job_id"] for job in rest["items"]], rest["next_cursor"]) == ([dead[0]], None)
    one = await api.get(f"/v1/dlq/{dead[0]}")
    assert (one["error_message"], one["payload"]) == ("no good", 0)
    assert (await api.get("/v1/dlq?name=other"))["items"] == []
    body = {"ids": [dead[0], "77"], "payload": {"fixed": True}, "max_retries": 1}
    replayed = (await api("POST", "/v1/dlq/replay", body)).json
    assert (replayed["count"], replayed["more"]) == (1, False)
    job = await api.get(f"/v1/jobs/{dead[0]}")
    assert (job["status"], job["payload"], job["max_retries"]) == ("pending", {"fixed": True}, 1)
    assert (await api("GET", f"/v1/dlq/{dead[0]}")).code == "unknown_job"
    assert (await api("POST", "/v1/dlq/purge", {"ids": [dead[1]]})).json["count"] == 1
    assert (await api.get(f"/v1/jobs/{dead[1]}"))["status"] == "failed"  # history stays
    assert (await api("POST", "/v1/dlq/purge", {"all": True})).json["count"] == 2
    assert (await api.get("/v1/dlq"))["items"] == []


async def test_all_dead_letters_can_be_replayed(api):
    dead = [await api.bury() for _ in range(3)]
    answer = (await api("POST", "/v1/dlq/replay", {"all": True})).json
    assert sorted(i["id"] for i in answer["items"]) == sorted(dead)
    assert answer["count"] == 3


@pytest.mark.parametrize("action", ["replay", "purge"])
async def test_the_dead_letters_to_touch_must_be_named(api, action):
    for body in ({}, {"ids": ["1"], "all": True}):
        answer = await api("POST", f"/v1/dlq/{action}", body)
        assert (answer.status, answer.code, answer.pointer) == (422, "validation", "/ids")


async def test_stats_count_what_there_is(api, node):
    await finish(api, 2)
    await api.bury()
    await api.submit(queue="a")
    await api.submit(queue="a", delay_seconds=5)
    worker = await api.worker(slots=7, queues=("b",))
    running = int(await api.submit(queue="b"))
    await worker.take()
    stats = await api.get("/v1/stats")
    assert stats["jobs_by_status"] == {
        "pending": 2, "running": 1, "completed": 2, "failed": 1, "cancelled": 0, "skipped": 0,
    }  # fmt: skip
    assert (stats["queue_length"], stats["active_workers"], stats["dead_letters"]) == (1, 1, 1)
    assert stats["queues"]["a"] == {"scheduled": 1, "ready": 1, "retrying": 0, "running": 0}
    assert (stats["slots_total"], stats["slots_used"]) == (7, 1)
    await node.desk.fail(worker.id, [AttemptError(running, 1, "E", "m")])
    queue = (await api.get("/v1/stats"))["queues"]["b"]
    assert (queue["retrying"], queue["running"]) == (1, 0)
