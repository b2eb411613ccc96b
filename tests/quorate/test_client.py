"""The client: coalescing, retries that submit once, errors as classes."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from fake_cluster import FakeCluster, StartWorker

from quorate import (
    BatchRefused,
    Client,
    Conflict,
    JobCancelled,
    JobFailed,
    NotFound,
    QueueFull,
    QuorateError,
    ResultTimeout,
    Scheduler,
    SyncClient,
    Unavailable,
    ValidationError,
)
from quorate.errors import error_from_problem
from quorate.requests import job_request
from quorate.transport import Response
from quorate.views import JobView, Page, read


def batch_sizes(fake: FakeCluster) -> list[int]:
    return [len(json.loads(body)) for _, path, body in fake.requests if path.endswith("/batch")]


async def test_concurrent_submissions_share_requests(fake: FakeCluster, app: Scheduler) -> None:
    handles = await asyncio.gather(*(app.submit("simulate", {"n": n}) for n in range(2500)))
    assert batch_sizes(fake) == [1000, 1000, 500]
    payloads = [fake.jobs[int(handle.id)]["payload"] for handle in handles]
    assert payloads == [{"n": n} for n in range(2500)]


async def test_a_lone_submission_leaves_at_once_and_later_ones_gather(
    fake: FakeCluster, app: Scheduler
) -> None:
    first = asyncio.ensure_future(app.submit("simulate"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the first request is under way
    others = [asyncio.ensure_future(app.submit("simulate")) for _ in range(5)]
    await asyncio.gather(first, *others)
    assert batch_sizes(fake) == [1, 5]


async def test_one_refused_job_of_a_shared_request_does_not_hurt_the_others(
    fake: FakeCluster, app: Scheduler
) -> None:
    results = await asyncio.gather(
        app.submit("simulate"),
        app.submit("refused"),
        app.submit("simulate"),
        return_exceptions=True,
    )
    assert isinstance(results[1], ValidationError)
    assert results[1].pointer == "/name"
    assert len(fake.jobs) == 2


async def test_submit_many_is_one_round_trip(fake: FakeCluster, app: Scheduler) -> None:
    @app.task(queue="mail", tags=["a"])
    async def send(text: str) -> None: ...

    handles = await app.submit_many(
        [send.job("x", delay="1m"), ("send", "y"), {"name": "other", "payload": 3, "key": "k"}]
    )
    assert batch_sizes(fake) == [3]
    jobs = [fake.jobs[int(handle.id)] for handle in handles]
    assert [job["queue"] for job in jobs] == ["mail", "mail", "default"]
    assert [job.get("delay_seconds") for job in jobs] == [60, None, None]
    assert jobs[2]["unique_key"] == "k"
    with pytest.raises(BatchRefused) as caught:
        await app.submit_many([send.job("x"), ("refused", None)])
    assert caught.value.ids == ["4", None]
    assert list(caught.value.errors) == [1]


async def test_a_lost_answer_is_asked_again_and_submits_once(
    fake: FakeCluster, app: Scheduler
) -> None:
    fake.lose_answers = 1
    handle = await app.submit("simulate")
    assert (handle.id, len(fake.jobs)) == ("1", 1)
    assert batch_sizes(fake) == [1, 1]


async def test_a_shared_request_whose_answer_is_lost_submits_each_job_once(
    fake: FakeCluster, app: Scheduler
) -> None:
    fake.lose_answers = 1
    names = ["simulate", "simulate", "refused", "simulate"]
    results = await asyncio.gather(
        *(app.submit(name, {"n": n}) for n, name in enumerate(names)), return_exceptions=True
    )
    assert batch_sizes(fake) == [4, 4]
    assert len(fake.jobs) == 3
    assert isinstance(results.pop(2), ValidationError)
    payloads = [fake.jobs[int(each.id)]["payload"] for each in results]  # type: ignore[union-attr]
    assert payloads == [{"n": 0}, {"n": 1}, {"n": 3}]


async def test_a_caller_that_gives_up_takes_only_its_own_job_along(
    fake: FakeCluster, app: Scheduler
) -> None:
    first = asyncio.ensure_future(app.submit("simulate"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the first request is under way
    others = [asyncio.ensure_future(app.submit("simulate", {"n": n})) for n in range(3)]
    await asyncio.sleep(0)
    others[1].cancel()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert isinstance(results[2], asyncio.CancelledError)
    assert batch_sizes(fake) == [1, 2]
    assert [job["payload"] for job in fake.jobs.values()][1:] == [{"n": 0}, {"n": 2}]


@pytest.mark.parametrize("code", ["no_quorum", "outcome_unknown", "not_leader", "overloaded"])
async def test_a_cluster_without_a_leader_is_waited_for(
    code: str, fake: FakeCluster, app: Scheduler
) -> None:
    fake.refuse = [(503, code)] * 4
    await app.submit("simulate")
    assert len(fake.jobs) == 1


async def test_the_client_moves_on_when_a_node_is_down(fake: FakeCluster, app: Scheduler) -> None:
    await app.submit("simulate")
    await fake.nodes[0].stop()
    await app.submit("simulate")
    await fake.nodes[1].stop()
    await app.submit("simulate")
    assert len(fake.jobs) == 3


async def test_patience_has_an_end(fake: FakeCluster) -> None:
    fake.refuse = [(503, "no_quorum")] * 100
    async with Client(fake.urls, retry_seconds=0.2) as client:
        with pytest.raises(Unavailable):
            await client.submit("simulate")
    async with Client("http://127.0.0.1:1", retry_seconds=0.1) as client:
        with pytest.raises(Unavailable, match="cannot reach"):
            await client.stats()


async def test_what_must_not_be_done_twice_is_not_repeated(fake: FakeCluster) -> None:
    async with Client(fake.urls, retry_seconds=5) as client:
        fake.refuse = [(504, "outcome_unknown")]
        with pytest.raises(Unavailable) as caught:
            await client.transport.json("POST", "/v1/jobs/1/clone", replayable=False)
    assert caught.value.code == "outcome_unknown"
    assert len(fake.requests) == 1


def test_one_odd_number_does_not_hide_a_page() -> None:
    page = read(b'{"items":[{"job_id":"1","payload":1e999},{"job_id":"2"}]}', Page[JobView])
    assert [item.job_id for item in page.items] == ["1", "2"]
    assert page.items[0].payload == float("inf")
    assert Response(200, {}, b"[1e999]").json() == [float("inf")]
    with pytest.raises(QuorateError, match="cannot read"):
        read(b'{"items":[{"job_id":1.5}]}', Page[JobView])


def test_a_refusal_names_the_field() -> None:
    problem = {"code": "validation", "detail": "too large", "pointer": "/3/priority"}
    assert str(error_from_problem(422, problem)) == "priority: too large"
    problem["detail"] = "`priority` is too large"
    assert str(error_from_problem(422, problem)) == "`priority` is too large"


def test_one_text_is_no_list_of_tags() -> None:
    with pytest.raises(TypeError, match=r"write \['abc'\]"):
        job_request("t", None, {"tags": "abc"})


async def test_refusals_are_classes(fake: FakeCluster, app: Scheduler) -> None:
    fake.refuse = [(429, "queue_full")]
    with pytest.raises(QueueFull) as caught:
        await app.submit("simulate")
    assert caught.value.retry_after == 0.05
    with pytest.raises(NotFound, match="no such job"):
        await app.handle("77").status()
    handle = await app.submit("simulate")
    await handle.cancel()
    with pytest.raises(Conflict, match="finished"):
        await handle.cancel()
    with pytest.raises(JobCancelled):
        await handle.result()


async def test_handles_wait_and_raise_what_happened(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    waiting = await app.submit("simulate", queue="nobody")
    with pytest.raises(ResultTimeout):
        await waiting.result(timeout=0.05)
    await start_worker()
    bad = await app.submit("simulate", {"fail_rate": 1}, max_retries=0)
    with pytest.raises(JobFailed, match="simulated failure") as caught:
        await bad.result(timeout=5)
    assert caught.value.error_type == "SimulatedFailure"
    good = await app.submit("simulate", {"execution_time_ms": 1})
    assert await good.result(timeout=5) == {"execution_time_ms": 1}


async def test_a_crowd_of_waiters_shares_requests(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    handles = await app.submit_many([("simulate", {"execution_time_ms": 1})] * 400)
    waits = [asyncio.ensure_future(handle.wait(20)) for handle in handles]
    await fake.until(lambda: [path for _, path, _ in fake.requests if path.endswith("/status")])
    assert len([path for method, path, _ in fake.requests if method == "GET"]) <= 64
    await start_worker(slots=50)
    views = await asyncio.gather(*waits)
    assert [view.job_id for view in views] == [handle.id for handle in handles]
    assert {view.status for view in views} == {"completed"}


async def test_a_crowd_member_can_give_up(fake: FakeCluster, app: Scheduler) -> None:
    handles = await app.submit_many([("simulate", None)] * 80)
    ends = await asyncio.gather(*(handle.wait(0.1) for handle in handles), return_exceptions=True)
    assert {type(end) for end in ends} == {ResultTimeout}


async def test_options_reach_the_wire(fake: FakeCluster, app: Scheduler) -> None:
    handle = await app.submit(
        "simulate",
        queue="q",
        priority="high",
        run_at=datetime(2030, 1, 1, tzinfo=UTC),
        timeout=timedelta(minutes=2),
        retry="fixed",
        max_retries=0,
        tags=("a", "b"),
        on_conflict="reject",
    )
    job = fake.jobs[int(handle.id)]
    assert job["run_at"] == "2030-01-01T00:00:00.000Z"
    assert (job["timeout_seconds"], job["retry"]) == (120, {"strategy": "fixed"})
    assert (job["max_retries"], job["tags"], job["priority"]) == (0, ["a", "b"], "high")
    with pytest.raises(ValueError, match="zone"):
        await app.submit("simulate", run_at=datetime(2030, 1, 1))
    with pytest.raises(TypeError, match="unknown job option 'dely'"):
        await app.submit("simulate", dely=3)  # type: ignore[call-arg]


async def test_lists_are_paged(fake: FakeCluster, app: Scheduler) -> None:
    await app.submit_many([("simulate", None)] * 5)
    page = await app.client.jobs.list(limit=2)
    assert ([job.job_id for job in page.items], page.next_cursor) == (["1", "2"], "2")
    everything = [job.job_id async for job in app.client.jobs.iterate(limit=2)]
    assert everything == ["1", "2", "3", "4", "5"]


async def test_every_read_takes_a_level(fake: FakeCluster, app: Scheduler) -> None:
    client = app.client
    handle = await client.submit("simulate")
    fake.levels.clear()
    await client.jobs.get("1", consistency="stale")
    await client.jobs.list(consistency="leader")
    await client.jobs.logs("1", consistency="linearizable")
    await client.jobs.status_many(["1"], consistency="stale")
    await client.workers.list(consistency="stale")
    await client.schedules.list(consistency="leader")
    await client.stats(consistency="linearizable")
    await client.cluster(consistency="leader")
    await handle.job(consistency="linearizable")
    await handle.status()
    assert [level for _, level in fake.levels] == [
        "stale", "leader", "linearizable", "stale", "stale", "leader", "linearizable", "leader",
        "linearizable", None,
    ]  # fmt: skip


async def test_a_client_has_a_level_of_its_own(fake: FakeCluster) -> None:
    def work() -> None:
        with SyncClient(fake.urls, retry_seconds=5, consistency="linearizable") as client:
            handle = client.submit("simulate")
            handle.status()
            client.jobs.get("1", consistency="stale")
            client.jobs.status_many(["1"])

    await asyncio.to_thread(work)
    assert fake.levels == [
        ("/v1/jobs/batch", None),
        ("/v1/jobs/1", "linearizable"),
        ("/v1/jobs/1", "stale"),
        ("/v1/jobs/status", "linearizable"),
    ]


async def test_the_blocking_client_does_the_same(fake: FakeCluster) -> None:
    def work() -> tuple[str, str, list[str]]:
        with SyncClient(fake.urls, retry_seconds=5) as client:
            handle = client.submit("simulate")
            handle.cancel()
            client.submit("simulate")
            ids = [job.job_id for job in client.jobs.iterate(limit=1)]
            return handle.status(), client.jobs.get("2").status, ids

    assert await asyncio.to_thread(work) == ("cancelled", "pending", ["1", "2"])


async def test_submit_sync_works_without_a_loop(fake: FakeCluster, app: Scheduler) -> None:
    @app.task()
    async def send(text: str) -> None: ...

    handle = await asyncio.to_thread(send.submit_sync, "x")
    assert (handle.id, fake.jobs[1]["payload"]) == ("1", "x")
    assert await asyncio.to_thread(handle.status) == "pending"
