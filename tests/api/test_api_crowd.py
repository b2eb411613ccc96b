"""A node that runs out of file descriptors: who is in stays in, who comes is told why not."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from api_fakes import FakeNode

from cluster.api.door import Door
from cluster.vitals import Vitals

JOB = {"name": "t"}


class Served:
    """A node behind its door; each client has a connection of its own."""

    def __init__(self, node: FakeNode, door: Door) -> None:
        self.vitals = node.services.vitals
        self.url = f"http://127.0.0.1:{door.port}"
        self.clients: list[aiohttp.ClientSession] = []

    def client(self) -> aiohttp.ClientSession:
        self.clients.append(aiohttp.ClientSession(self.url))
        return self.clients[-1]

    def leave_room_for(self, count: int) -> None:
        """So many descriptors more, and new work is refused."""
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        self.vitals.files.limit = (lowest + count) * 10 // 9


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    node = FakeNode(tmp_path)
    runner = web.AppRunner(node.app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    door = Door(node.services, runner.server)
    await door.open("127.0.0.1", 0)
    served = Served(node, door)
    yield served
    for client in served.clients:
        await client.close()
    await door.close(1.0)
    await runner.cleanup()
    await node.close()


async def test_who_is_in_stays_and_who_comes_is_told_why_not(served: Served) -> None:
    early = served.client()
    async with early.post("/v1/jobs", json=JOB) as answer:
        assert answer.status == 201
    served.leave_room_for(0)
    async with served.client().post("/v1/jobs", json=JOB) as answer:
        problem = await answer.json()
        assert (answer.status, problem["code"]) == (503, "connections_full")
        assert "file descriptors are in use" in problem["detail"]
        assert answer.headers["Retry-After"] == "1"
    async with early.post("/v1/jobs", json=JOB) as answer:
        assert answer.status == 201
    for path in ("/metrics", "/livez", "/readyz?verbose", "/v1/debug", "/v1/cluster"):
        async with served.client().get(path) as answer:
            assert answer.status == 200, path
    served.leave_room_for(100)
    async with served.client().post("/v1/jobs", json=JOB) as answer:
        assert answer.status == 201


async def test_a_refused_connection_that_says_nothing_is_closed_by_its_client(
    served: Served,
) -> None:
    served.leave_room_for(0)
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 60) == b""
    writer.close()


def test_a_low_number_says_nothing_while_many_are_open(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody left, and the next one was given that number."""
    caplog.set_level(logging.INFO, "quorate.vitals")
    vitals = Vitals()
    vitals.files.limit = 1_000
    assert vitals.opened(798)
    assert vitals.opened(799)
    assert vitals.opened(10)
    assert vitals.opened(800)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert not vitals.opened(900)
    assert not vitals.opened(10)
    assert vitals.warnings() == ["901 of 1,000 file descriptors are in use"]
    vitals.look()  # counts, and there are few
    assert vitals.opened(10)
    assert vitals.warnings() == []
