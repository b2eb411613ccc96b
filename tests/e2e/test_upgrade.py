"""Two releases of real processes serve one cluster: up, down again, up, and then no way back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from chaos.live.processes import NODE, ROOT, LocalCluster, NodeChild
from cluster.machine.levels import BASE_LEVEL, HIGHEST_LEVEL
from quorate import Client, Conflict
from tests.e2e.conftest import FLAGS, TASKS

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(180)]

OLDER = ROOT / "chaos" / "live" / "older_node.py"
PAUSE_S = 0.05
READY_S = 90.0  # a start is mostly imports, and machines of tests are busy


def install(node: NodeChild, program: Path) -> None:
    """What it is started with from now on."""
    at = next(at for at, word in enumerate(node.argv) if word in (str(NODE), str(OLDER)))
    node.argv[at] = str(program)


async def roll(cluster: LocalCluster, node: NodeChild, program: Path) -> None:
    assert await node.stop() == 0, node.log_text()[-2_000:]
    install(node, program)
    await node.start()
    await cluster.ready(READY_S)


@contextlib.asynccontextmanager
async def submitting(client: Client) -> AsyncIterator[list[str]]:
    """A job now and then; those that were acknowledged are in the list."""
    ids: list[str] = []

    async def go_on() -> None:
        while True:
            ids.append((await client.submit("quick", f"{len(ids)}")).id)
            await asyncio.sleep(PAUSE_S)

    task = asyncio.create_task(go_on())
    yield ids
    assert not task.done(), task
    task.cancel()


async def levels(cluster: LocalCluster) -> list[int]:
    answers = [await cluster.get("/v1/cluster", node) for node in cluster.nodes]
    return [answer["feature_level"]["level"] for answer in answers]


async def test_a_cluster_is_upgraded_node_by_node_under_load(tmp_path: Path) -> None:
    async with (
        LocalCluster(tmp_path, flags=FLAGS, env={"E2E_FOLDER": str(tmp_path)}, program=OLDER) as up,
        Client(up.urls, retry_seconds=30) as client,
    ):
        await up.worker("w1", TASKS, slots=20)
        first, second, third = up.nodes
        async with submitting(client) as ids:
            await roll(up, first, NODE)
            await roll(up, first, OLDER)  # the way back is open
            for node in (first, second):
                await roll(up, node, NODE)
            with pytest.raises(Conflict, match=f"{third.raft} knows levels up to {BASE_LEVEL}"):
                await client.upgrade()
            await roll(up, third, NODE)
            assert await levels(up) == [BASE_LEVEL] * 3
            assert (await client.upgrade(dry_run=True))["level"] == HIGHEST_LEVEL
            assert (await client.upgrade())["level"] == HIGHEST_LEVEL
            await up.until(lambda: _all_at(up, HIGHEST_LEVEL), "the new level everywhere")
            await second.stop()
            install(second, OLDER)
            await second.start()
            assert await second.wait() == 1
            assert (
                f"cannot start on {second.data}: the data is at feature level {HIGHEST_LEVEL}, "
                f"this release knows levels up to {BASE_LEVEL}" in second.log_text()
            )
            install(second, NODE)
            await second.start()
            await up.ready(READY_S)
            await up.until(_more(ids, 20), "jobs at the new level")
        await up.until(_completed(client, len(ids)), "every acknowledged job to end", 60)
        executed = (tmp_path / "executions").read_text().split("\n")[:-1]
        assert set(ids) <= {line.split()[0] for line in executed}
        for node in up.nodes:
            assert "cannot read" not in node.log_text()


async def _all_at(cluster: LocalCluster, level: int) -> bool:
    return set(await levels(cluster)) == {level}


def _completed(client: Client, count: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        by_status = (await client.stats())["jobs_by_status"]
        return bool(by_status["completed"] >= count)

    return reached


def _more(ids: list[str], count: int) -> Callable[[], Awaitable[bool]]:
    """So many more are acknowledged than there are now."""
    wanted = len(ids) + count

    async def reached() -> bool:
        return len(ids) >= wanted

    return reached
