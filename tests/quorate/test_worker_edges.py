"""A worker and tasks that do not behave: deaf threads, swallowed cancellations, a blocked loop."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import ContextVar

import pytest
from fake_cluster import FakeCluster, StartWorker, finished, unpack

from quorate import Scheduler
from quorate.executors import Tools, executors_for
from quorate.worker.frames import Assignment
from quorate.worker.outbox import Outbox
from quorate.worker.runner import Runner


async def test_a_thread_out_of_time_is_reported_at_once_but_keeps_its_slot(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    gate = threading.Event()

    @app.task(timeout=0.05, max_retries=0)
    def deaf() -> None:
        gate.wait(10)

    worker = await start_worker(app, slots=1)
    first = await deaf.submit()
    job = await finished(fake, first.id)
    assert job["error_type"] == "timeout"
    waiting = await app.submit("simulate")
    assert (worker.running, fake.status(int(waiting.id))) == (1, "pending")
    gate.set()
    assert (await waiting.wait(60)).status == "completed"


async def test_failures_of_built_in_tasks_log_no_frames(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    await start_worker(app)
    line = {"command": "echo seen; exit 3"}
    job = await finished(fake, (await app.submit("command", line, max_retries=0)).id)
    assert (job["error_type"], job["log"]) == ("CommandFailed", "seen")
    missing = await app.submit("command", {"command": ["/no/such/program"]})
    job = await finished(fake, missing.id)
    assert (job["error_type"], job["log"]) == ("NonRetryable", None)


async def test_a_task_that_swallows_its_cancellation_is_reported_and_told_again(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quorate.worker.runner.STUBBORN_SECONDS", 0.1)
    told = 0

    @app.task(timeout=0.05, max_retries=0)
    async def stubborn() -> None:
        nonlocal told
        while told < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told += 1

    worker = await start_worker(app, slots=1)
    job = await finished(fake, (await stubborn.submit()).id)
    assert job["error_type"] == "timeout"
    after = await app.submit("simulate")
    assert (await after.wait(60)).status == "completed"
    assert (told, worker.running) == (3, 0)


async def test_a_run_that_shall_stop_is_not_over_before_it_has_really_ended(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one waits for its end: a thread that does not look at its flag holds that up."""
    monkeypatch.setattr("quorate.worker.runner.STUBBORN_SECONDS", 0.05)
    started, gate = threading.Event(), threading.Event()

    @app.task()
    def deaf() -> int:
        started.set()
        gate.wait(10)
        return 7

    await start_worker(app, slots=2)
    handle = await deaf.submit()
    await asyncio.to_thread(started.wait, 5)
    await fake.stop(int(handle.id))
    # By the time this has run the sweep has insisted more than once.
    after = await app.submit("simulate", {"duration_ms": 200})
    assert (await after.wait(60)).status == "completed"
    assert fake.status(int(handle.id)) == "running"
    gate.set()
    assert (await finished(fake, handle.id))["output"] == 7


async def test_blocking_the_loop_is_named_in_the_log(
    fake: FakeCluster,
    app: Scheduler,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("quorate.worker.runner.BLOCKED_SECONDS", 0.05)

    @app.task()
    async def rude() -> None:
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - the very mistake
        await asyncio.sleep(0.1)

    await start_worker(app)
    await (await rude.submit()).wait(60)
    assert "was blocked" in caplog.text
    assert "rude" in caplog.text


async def test_a_context_variable_of_one_job_is_not_seen_by_the_next(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    mine: ContextVar[str] = ContextVar("mine", default="clean")

    @app.task()
    async def leaky(text: str) -> str:
        before = mine.get()
        mine.set(text)
        await asyncio.sleep(0)
        return before

    await start_worker(app, slots=1)
    handles = await leaky.submit_many(["a", "b", "c"])
    assert [await handle.result(60) for handle in handles] == ["clean"] * 3


async def test_a_result_that_is_no_json_is_final(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    @app.task()
    async def give() -> object:
        return object()

    await start_worker(app)
    job = await finished(fake, (await give.submit()).id)
    assert (job["status"], job["retryable"]) == ("failed", False)
    assert "cannot be written as JSON" in str(job["error_message"])


async def test_a_stop_before_the_first_step_frees_the_slot(app: Scheduler) -> None:
    ran = []

    @app.task()
    async def work() -> None:
        ran.append(1)

    outbox = Outbox()
    runner = Runner(executors_for(app.tasks.values(), Tools(4)), outbox, 4)
    runner.start([Assignment(1, 1, "work"), Assignment(2, 1, "work"), Assignment(3, 1, "work")])
    runner.cancel([(1, 1)])  # in the same loop turn
    runner.stop_accepting()
    runner.release_all()
    await runner.wait_idle()
    assert ran == []
    assert [unpack(frame) for frame in outbox.frames()] == [["released", 1, [[2, 1], [3, 1]], 0]]


async def test_an_error_without_a_text_is_reported_all_the_same(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("mute")

    @app.task(max_retries=0)
    async def fail() -> None:
        raise MuteError

    await start_worker(app)
    job = await finished(fake, (await fail.submit()).id)
    assert "its text cannot be made" in str(job["error_message"])


async def test_a_worker_whose_wall_clock_is_wrong_gives_a_job_its_time(
    app: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    @app.task(name="work")
    async def work() -> None:
        await gate.wait()

    deadline_ms = round(time.time() * 1000) + 60_000
    monkeypatch.setattr(time, "time", lambda: deadline_ms / 1000 + 3_600)
    runner = Runner(executors_for(app.tasks.values(), Tools(4)), Outbox(), 4)
    runner.start([Assignment(1, 1, "work", timeout_ms=5_000, deadline_ms=deadline_ms)])
    left = runner.running[(1, 1)].stop_at - asyncio.get_running_loop().time()
    gate.set()
    await runner.wait_idle()
    assert 4 < left <= 5
