"""A worker over the stream: every end of a job, failover, and leaving."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from fake_cluster import FakeCluster, StartWorker, finished

from quorate import Context, NonRetryable, Scheduler, current


class Order(msgspec.Struct):
    number: int
    note: str = ""


async def test_async_and_thread_tasks_return_typed_results(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    @app.task()
    async def double(order: Order, ctx: Context) -> Order:
        await asyncio.sleep(0)
        assert current() is ctx
        return Order(order.number * 2, f"{ctx.name} {ctx.attempt}")

    @app.task()
    def shout(text: str, ctx: Context) -> str:
        assert current().job_id == ctx.job_id
        return text.upper()

    await start_worker(app)
    first = await double.submit(Order(21))
    second = await shout.submit("hi")
    assert await first.result(timeout=5) == Order(42, "double 1")
    assert await second.result(timeout=5) == "HI"


async def test_a_failure_carries_type_message_and_traceback(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    @app.task(max_retries=0)
    async def broken() -> None:
        raise KeyError("no such thing")

    await start_worker(app)
    handle = await broken.submit()
    job = await finished(fake, handle.id)
    assert (job["error_type"], job["retryable"]) == ("KeyError", True)
    assert 'raise KeyError("no such thing")' in str(job["log"])
    assert "runner.py" not in str(job["log"])


@pytest.mark.parametrize("error", [NonRetryable("never"), ValueError("never")])
async def test_final_errors_are_not_retried(
    error: Exception, fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    @app.task(non_retryable=ValueError)
    async def broken() -> None:
        raise error

    await start_worker(app)
    job = await finished(fake, (await broken.submit()).id)
    assert (job["status"], job["failures"], job["retryable"]) == ("failed", 1, False)


async def test_a_bad_payload_is_final_and_says_where(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    @app.task()
    async def take(order: Order) -> None: ...

    await start_worker(app)
    job = await finished(fake, (await app.submit("take", {"number": "x"})).id)
    assert job["retryable"] is False
    assert "Expected `int`, got `str` - at `$.number`" in str(job["error_message"])


async def test_an_unknown_task_is_final_and_names_what_is_known(
    fake: FakeCluster, start_worker: StartWorker
) -> None:
    await start_worker()
    job_id = fake.add("nonsense")
    await fake.dispatch()
    job = await finished(fake, job_id)
    assert (job["error_type"], job["retryable"]) == ("unknown_task", False)
    assert "this worker knows: command, http, simulate" in str(job["error_message"])


async def test_sys_exit_in_a_task_does_not_end_the_worker(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    @app.task(max_retries=0)
    async def leave() -> None:
        raise SystemExit(3)

    worker = await start_worker(app)
    job = await finished(fake, (await leave.submit()).id)
    assert job["error_type"] == "SystemExit"
    assert (await (await app.submit("simulate")).wait(60)).status == "completed"
    assert worker.finished_count == 2


async def test_a_timeout_stops_the_task_and_is_reported(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    stopped = asyncio.Event()

    @app.task(timeout=0.05, max_retries=0)
    async def slow(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            assert ctx.cancelled
            stopped.set()

    await start_worker(app)
    job = await finished(fake, (await slow.submit()).id)
    assert stopped.is_set()
    assert job["error_type"] == "timeout"
    assert job["error_message"] == "ran longer than its timeout of 0.05 s"


async def test_a_cancelled_job_is_really_stopped_and_its_slot_is_free_again(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    @app.task()
    async def slow(ctx: Context) -> None:
        started.set()
        await ctx.wait_cancelled()
        stopped.set()

    worker = await start_worker(app, slots=1)
    handle = await slow.submit()
    await started.wait()
    await handle.cancel()
    await stopped.wait()
    assert (await (await app.submit("simulate")).wait(60)).status == "completed"
    assert worker.running == 0
    assert fake.status(int(handle.id)) == "cancelled"


async def test_a_job_that_shall_stop_says_how_it_ended(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    @app.task()
    async def endless() -> None:
        await asyncio.Event().wait()

    @app.task()
    async def dutiful(ctx: Context) -> str:
        await ctx.wait_cancelled()
        return "what I have so far"

    await start_worker(app)
    first, second = await endless.submit(), await dutiful.submit()
    for handle in (first, second):
        await fake.until(lambda: fake.status(int(handle.id)) == "running")  # noqa: B023
        await fake.stop(int(handle.id))
    job = await finished(fake, first.id)
    assert (job["error_type"], job["retryable"]) == ("cancelled", False)
    job = await finished(fake, second.id)
    assert (job["status"], job["output"]) == ("completed", "what I have so far")


async def test_a_thread_sees_its_cancellation_as_a_flag(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    loop = asyncio.get_running_loop()
    started, stopped = asyncio.Event(), asyncio.Event()

    @app.task()
    def slow(ctx: Context) -> None:
        loop.call_soon_threadsafe(started.set)
        while not ctx.cancelled:
            pass
        loop.call_soon_threadsafe(stopped.set)

    await start_worker(app)
    handle = await slow.submit()
    await started.wait()
    await handle.cancel()
    await stopped.wait()


async def test_results_without_ack_are_said_again_to_the_new_leader(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    worker = await start_worker(app)
    fake.acking = False
    handle = await app.submit("simulate")
    link = fake.workers["w1"]
    await fake.until(lambda: [frame for frame in link.frames if frame[0] == "done"])
    assert fake.status(int(handle.id)) == "running"
    fake.acking = True
    await fake.move_leader(2)
    assert (await handle.wait(60)).status == "completed"
    again = fake.workers["w1"]
    assert again is not link
    assert again.hello["running"] == [[int(handle.id), 1]]
    assert worker.worker_id == "w1"


async def test_running_jobs_survive_a_failover_and_stale_ones_are_dropped(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    gate = asyncio.Event()
    stopped: list[str] = []

    @app.task()
    async def wait(ctx: Context) -> str:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            stopped.append(ctx.job_id)
            raise
        return "kept"

    await start_worker(app, slots=2)
    kept, lost = await wait.submit_many([None, None])
    await fake.until(lambda: fake.status(int(lost.id)) == "running")
    fake.jobs[int(lost.id)]["status"] = "cancelled"  # the new leader knows, the worker does not
    old = fake.workers["w1"]
    await fake.move_leader(1)
    await fake.until(lambda: fake.workers["w1"] is not old and fake.workers["w1"].frames)
    gate.set()
    assert await kept.result(60) == "kept"
    assert stopped == [lost.id]


async def test_credit_never_exceeds_free_slots_after_a_reconnect(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    gate = asyncio.Event()
    running, most = 0, 0

    @app.task()
    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    await start_worker(app, slots=3)
    handles = await count.submit_many([None] * 2)
    await fake.until(lambda: fake.status(2) == "running")
    old = fake.workers["w1"]
    await fake.move_leader(1)
    await fake.until(lambda: fake.workers["w1"] is not old)
    handles += await count.submit_many([None] * 6)
    await fake.until(lambda: fake.status(3) == "running")
    assert [fake.status(n) for n in range(1, 9)] == ["running"] * 3 + ["pending"] * 5
    gate.set()
    assert [view.status for view in [await h.wait(60) for h in handles]] == ["completed"] * 8
    assert most <= 3


async def test_progress_and_logs_reach_the_node(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    gate = asyncio.Event()

    @app.task()
    async def chatty(ctx: Context) -> None:
        ctx.progress(0.1, "start")
        ctx.progress(2.5, "half")
        ctx.log("one", 2)
        ctx.logger.warning("careful %s", "now")
        await gate.wait()

    await start_worker(app)
    handle = await chatty.submit()
    job = fake.jobs[int(handle.id)]
    await fake.until(lambda: job.get("progress"))
    assert job["progress"] == {"fraction": 1.0, "message": "half"}
    gate.set()
    await handle.result(60)
    assert job["log"] == "one 2\nWARNING careful now"


async def test_leaving_hands_back_what_does_not_finish(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    saw_shutdown = asyncio.Event()

    @app.task()
    async def endless(ctx: Context) -> None:
        while not ctx.shutdown_requested:  # noqa: ASYNC110 - a loop as users write it
            await asyncio.sleep(0.01)
        saw_shutdown.set()
        await asyncio.Event().wait()

    worker = await start_worker(app, grace=0.2)
    handle = await endless.submit()
    await fake.until(lambda: fake.status(int(handle.id)) == "running")
    worker.stop()
    await worker.task  # type: ignore[attr-defined]
    job = fake.jobs[int(handle.id)]
    assert saw_shutdown.is_set()
    assert (job["status"], job["failures"], job["released"]) == ("pending", 0, 1)
    assert fake.workers == {}


async def test_leaving_lets_running_jobs_finish(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    gate = asyncio.Event()

    @app.task()
    async def work() -> str:
        await gate.wait()
        return "done"

    worker = await start_worker(app, slots=1)
    first, second = await work.submit_many([None, None])
    await fake.until(lambda: fake.status(int(first.id)) == "running")
    link = fake.workers["w1"]
    worker.stop()
    await fake.until(lambda: ["drain"] in link.frames)
    gate.set()
    await worker.task  # type: ignore[attr-defined]
    assert await first.result(60) == "done"
    assert fake.status(int(second.id)) == "pending"
    assert link.frames[-1] == ["bye"]


async def test_a_leader_that_vanished_is_left_for_the_one_that_others_follow(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quorate.worker.stream.DOUBT_SECONDS", 0.05)
    fake.ttl_seconds = 600.0
    await start_worker(app)
    fake.acking = False
    handle = await app.submit("simulate")
    link = fake.workers["w1"]
    await fake.until(lambda: [frame for frame in link.frames if frame[0] == "done"])
    fake.silent = True
    asked = await asks(fake, 2)
    assert fake.workers["w1"] is link  # all follow it: it is slow, not gone
    fake.leader, fake.acking = 1, True
    assert (await handle.wait(60)).status == "completed"
    assert fake.workers["w1"] is not link
    assert len(fake.requests) > asked


async def test_an_idle_worker_asks_about_a_node_that_is_silent(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quorate.worker.stream.DOUBT_SECONDS", 0.05)
    fake.ttl_seconds, fake.silent = 3.0, True
    await start_worker(app)
    link = fake.workers["w1"]
    await asks(fake, 2)
    assert fake.workers["w1"] is link
    assert link.socket is not None


async def asks(fake: FakeCluster, times: int) -> int:
    """Until nodes were asked so often from now on who leads; all requests until then."""
    before = len(fake.requests)

    def asked() -> bool:
        paths = [path for _, path, _ in fake.requests[before:]]
        return paths.count("/v1/cluster") >= times

    await fake.until(asked)
    return len(fake.requests)
