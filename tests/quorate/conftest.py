"""Fixtures: a fake cluster of three nodes, and workers that are always ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fake_cluster import FakeCluster, StartWorker
from fake_node import FakeNode

from quorate import Scheduler, Worker


@pytest.fixture
async def fake() -> AsyncIterator[FakeCluster]:
    cluster = FakeCluster()
    nodes = [FakeNode(cluster) for _ in range(3)]
    for node in nodes:
        await node.start()
    yield cluster
    for node in nodes:
        await node.stop()


@pytest.fixture
async def app(fake: FakeCluster) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(fake.urls, retry_seconds=5)
    yield scheduler
    await scheduler.close()


@pytest.fixture
async def start_worker(fake: FakeCluster) -> AsyncIterator[StartWorker]:
    """Starts a worker and returns it registered; aborts it at the end of the test."""
    started: list[tuple[Worker, asyncio.Task[None]]] = []

    async def start(app: Scheduler | None = None, **options: Any) -> Worker:
        worker = Worker(app, nodes=fake.urls, **options)
        task = asyncio.get_running_loop().create_task(worker.run())
        started.append((worker, task))
        worker.task = task  # type: ignore[attr-defined]
        waiting = asyncio.ensure_future(worker.registered.wait())
        await asyncio.wait((waiting, task), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        return worker

    yield start
    for worker, task in started:
        worker.abort()
        await asyncio.wait((task,))
        task.exception()
