"""The long-poll twin: the same jobs, ends and leaving as over the stream."""

from __future__ import annotations

import asyncio

from fake_cluster import FakeCluster, StartWorker, finished

from quorate import Context, Scheduler


async def test_jobs_run_and_every_end_is_reported(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    @app.task()
    async def greet(name: str, ctx: Context) -> str:
        ctx.progress(0.5, "half")
        await asyncio.sleep(0)
        return f"hello {name}"

    await start_worker(app, protocol="poll", slots=2)
    good = await greet.submit("ada")
    bad = await app.submit("simulate", {"fail_rate": 1}, max_retries=1)
    assert await good.result(60) == "hello ada"
    assert (await bad.wait(60)).status == "failed"
    assert fake.jobs[int(bad.id)]["failures"] == 2
    await fake.until(lambda: fake.jobs[int(good.id)].get("progress"))
    assert fake.jobs[int(good.id)]["progress"]["message"] == "half"


async def test_a_result_survives_lost_answers_and_dead_nodes(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    gate = asyncio.Event()

    @app.task()
    async def wait() -> int:
        await gate.wait()
        return 7

    await start_worker(app, protocol="poll", slots=1)
    handle = await wait.submit()
    await fake.until(lambda: fake.status(int(handle.id)) == "running")
    await fake.nodes[0].stop()
    fake.refuse = [(503, "no_quorum")] * 2
    fake.lose_answers = 1
    gate.set()
    assert await handle.result(60) == 7


async def test_a_cancellation_comes_with_the_heartbeat(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    fake.ttl_seconds = 0.3
    stopped = asyncio.Event()

    @app.task()
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    await start_worker(app, protocol="poll")
    handle = await endless.submit()
    await fake.until(lambda: fake.status(int(handle.id)) == "running")
    await handle.cancel()
    async with asyncio.timeout(60):
        await stopped.wait()


async def test_a_heartbeat_asks_for_an_end_that_is_reported(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    fake.ttl_seconds = 0.3

    @app.task()
    async def endless() -> None:
        await asyncio.Event().wait()

    await start_worker(app, protocol="poll")
    handle = await endless.submit()
    await fake.until(lambda: fake.status(int(handle.id)) == "running")
    await fake.stop(int(handle.id))
    async with asyncio.timeout(60):
        job = await finished(fake, handle.id)
    assert (job["error_type"], job["retryable"]) == ("cancelled", False)


async def test_a_forgotten_worker_registers_again(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    fake.ttl_seconds = 0.3
    await start_worker(app, protocol="poll", name="me")
    fake.workers.clear()
    await fake.until(lambda: fake.workers)
    handle = await app.submit("simulate")
    assert (await handle.wait(60)).status == "completed"


async def test_leaving_hands_back_and_deregisters(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    @app.task()
    async def endless() -> None:
        await asyncio.Event().wait()

    worker = await start_worker(app, protocol="poll", grace=0.1)
    handle = await endless.submit()
    await fake.until(lambda: fake.status(int(handle.id)) == "running")
    worker.stop()
    async with asyncio.timeout(60):
        await worker.task  # type: ignore[attr-defined]
    assert fake.jobs[int(handle.id)]["released"] == 1
    assert fake.workers == {}
