"""Nodes that are told to stop: one after the other under load, then all at once; and a bundle."""

from __future__ import annotations

import asyncio
import json
import sys
import tarfile
from pathlib import Path

import pytest

from chaos.live.processes import LocalCluster
from quorate import Client
from tests.e2e.conftest import TASKS
from tests.e2e.test_failures import all_finished

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CLIENTS = 4


async def test_nodes_end_when_they_are_told_to_and_nothing_is_lost(
    cluster: LocalCluster, client: Client, tmp_path: Path
) -> None:
    await cluster.worker("w1", TASKS, slots=50)
    stop, ids = asyncio.Event(), list[str]()

    async def submit() -> None:
        while not stop.is_set():
            ids.append((await client.submit("quick", "x")).id)

    clients = [asyncio.create_task(submit()) for _ in range(CLIENTS)]
    leader = await cluster.leader()
    before = len(ids)

    async def loaded() -> bool:
        return len(ids) >= before + 100

    await cluster.until(loaded, "load")
    assert await leader.stop() == 0, leader.log_text()
    assert "handed leadership to" in leader.log_text()
    before = len(ids)
    await cluster.until(loaded, "load at the next leader")
    manifest = await bundle(cluster, tmp_path / "bundle.tar.gz")
    answered = {node["url"]: node["answered"] for node in manifest["nodes"]}
    assert answered == {node.url: node is not leader for node in cluster.nodes}
    stop.set()
    await asyncio.gather(*clients)
    assert len(set(ids)) == len(ids)
    assert (await all_finished(cluster, client))["completed"] == len(ids)
    await leader.start()
    await cluster.ready()
    codes = await asyncio.gather(*(node.stop() for node in cluster.nodes))
    assert codes == [0, 0, 0]


async def bundle(cluster: LocalCluster, target: Path) -> dict:
    """As an operator takes one who knows a single node."""
    alive = next(node for node in cluster.nodes if node.is_running)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "quorate", "debug", "bundle", str(target), "--nodes", alive.url)
    )
    assert await process.wait() == 0
    with tarfile.open(target) as tar:
        part = tar.extractfile("quorate-debug/bundle.json")
        assert part is not None
        return json.loads(part.read())
