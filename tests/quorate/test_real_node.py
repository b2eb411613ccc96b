"""The package against a real node in the same process: the two halves agree on the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from quorate import Context, JobFailed, Scheduler, Worker
from quorate.testing import local_node


@pytest.fixture
async def app() -> AsyncIterator[Scheduler]:
    async with local_node() as url:
        scheduler = Scheduler(url, retry_seconds=10)
        yield scheduler
        await scheduler.close()


@pytest.mark.parametrize("protocol", ["stream", "poll"])
async def test_jobs_end_as_they_should(app: Scheduler, protocol: Literal["stream", "poll"]) -> None:
    started = asyncio.Event()

    @app.task(max_retries=1, retry={"strategy": "fixed", "base_seconds": 0.05, "jitter": False})
    async def second_time_lucky(ctx: Context) -> int:
        if ctx.attempt == 1:
            raise RuntimeError("not yet")
        return ctx.attempt

    @app.task()
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    async with Worker(app, protocol=protocol, slots=4):
        assert await (await second_time_lucky.submit()).result(60) == 2
        broken = await app.submit("simulate", {"fail_rate": 1}, max_retries=0)
        with pytest.raises(JobFailed, match="simulated failure"):
            await broken.result(60)
        dead = await app.client.dlq.list()
        assert [job.job_id for job in dead.items] == [broken.id]
        assert await app.client.dlq.purge() == 1
        handle = await endless.submit()
        async with asyncio.timeout(60):
            await started.wait()
        assert (await handle.cancel()).status == "cancelled"


async def test_a_batch_and_its_views(app: Scheduler) -> None:
    handles = await app.submit_many([("simulate", {"execution_time_ms": 0})] * 300)
    async with Worker(app, slots=8):
        views = [await handle.wait(60) for handle in handles]
    assert {view.status for view in views} == {"completed"}
    page = await app.client.jobs.list(status="completed", limit=100)
    assert len(page.items) == 100
    assert page.next_cursor is not None
    assert (await app.client.stats())["jobs_by_status"]["completed"] == 300
    events = [event.event for event in await app.client.jobs.timeline(handles[0].id)]
    assert events[0] == "created"
    assert "completed" in events


async def test_declared_schedules_survive_being_declared_again(app: Scheduler) -> None:
    ran = asyncio.Event()

    @app.every(1, id="often")
    @app.task()
    async def tick() -> None:
        ran.set()

    async with Worker(app):
        async with asyncio.timeout(60):
            await ran.wait()
        before = await app.client.schedules.get("often")
        (after,) = await app.sync_schedules()
        assert after.run_count >= before.run_count >= 1
    await app.client.schedules.delete("often")
    assert list(await app.client.schedules.list()) == []


async def test_leaving_hands_back_without_using_up_an_attempt(app: Scheduler) -> None:
    started = asyncio.Event()

    @app.task(max_retries=0)
    async def wait(ctx: Context) -> int:
        if ctx.attempt == 1:
            started.set()
            await asyncio.Event().wait()
        return ctx.failures

    async with Worker(app, grace=0.1):
        handle = await wait.submit()
        await started.wait()
    async with Worker(app):
        assert await handle.result(60) == 0
