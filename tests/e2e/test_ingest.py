"""Ingest processes on real nodes: one port for all routes, nothing lost when they are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chaos.live.processes import Child, LocalCluster, NodeChild
from tests.e2e.conftest import FLAGS

JOB = {"name": "simulate", "payload": {"execution_time_ms": 1}}
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def children(node: Child) -> list[int]:
    """The processes that a node has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(fields[1]) == node.pid:
            found.append(int(stat.parent.name))
    return found


def is_alive(pid: int) -> bool:
    """Not if it is only left for its parent to be counted: an orphan may never be."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


async def until(cluster: LocalCluster, condition: Any, what: str) -> None:
    async def holds() -> bool:
        return bool(condition())

    await cluster.until(holds, what)


async def gauge(cluster: LocalCluster, name: str, node: Any = None) -> float:
    text = await cluster.get("/metrics", node)
    (line,) = [line for line in text.splitlines() if line.startswith(f"quorate_{name} ")]
    return float(line.split()[1])


async def post(node: NodeChild, path: str, body: Any, status: int) -> Any:
    """On a connection of its own: one that has asked for more belongs to the node."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(node.url + path, json=body) as response,
    ):
        assert response.status == status, await response.text()
        return await response.json(content_type=None)


async def test_one_port_serves_every_route_on_every_node(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, flags=[*FLAGS, "--ingest", "1"]) as cluster:
        await cluster.worker("w1")
        ids = []
        for node in cluster.nodes:
            job = await post(node, "/v1/jobs", JOB, 201)
            answer = await post(node, "/v1/jobs/batch", [JOB] * 3, 201)
            ids += [job["id"], *answer["ids"]]
            problem = await post(node, "/v1/jobs", {"name": 1}, 422)
            assert problem["errors"][0]["pointer"] == "/name"
            assert (await cluster.request("GET", "/v1/nothing", node))[0] == 404
        for job_id in ids:
            job = await cluster.get(f"/v1/jobs/{job_id}?wait=20")
            assert job["status"] == "completed", job
        leader = await cluster.leader()
        assert await gauge(cluster, "ingest_submissions", leader) == 2
        started = [pid for node in cluster.nodes for pid in children(node)]
        assert len(started) == 3
        for worker in cluster.workers:
            await worker.stop()
        assert await asyncio.gather(*(node.stop() for node in cluster.nodes)) == [0, 0, 0]
        assert not any(is_alive(pid) for pid in started)


class Load:
    """Clients that repeat a batch under its key until it is acknowledged."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.stopped = False
        self.acknowledged: list[str] = []
        self.batches = 0

    async def client(self, name: str) -> None:
        async with aiohttp.ClientSession() as session:
            number = 0
            while not self.stopped:
                number += 1
                self.acknowledged += await self._until_acknowledged(session, f"{name}-{number}")
                self.batches += 1

    async def _until_acknowledged(self, session: aiohttp.ClientSession, key: str) -> list[str]:
        while True:
            try:
                async with session.post(
                    f"{self._url}/v1/jobs/batch",
                    json=[JOB] * 5,
                    headers={"Idempotency-Key": key},
                    timeout=aiohttp.ClientTimeout(total=10),
                ) as response:
                    if response.status == 201:
                        ids: list[str] = (await response.json())["ids"]
                        return ids
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.02)


async def test_a_killed_ingest_process_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1, flags=[*FLAGS, "--ingest", "2"]) as cluster:
        (node,) = cluster.nodes
        load = Load(node.url)
        clients = [asyncio.create_task(load.client(str(number))) for number in range(8)]
        for restarts in range(1, 4):
            enough = load.batches + 20
            await until(cluster, lambda enough=enough: load.batches >= enough, "some batches")
            os.kill(children(node)[0], signal.SIGKILL)

            async def restarted(restarts: int = restarts) -> bool:
                return (
                    await gauge(cluster, "ingest_restarts") >= restarts
                    and await gauge(cluster, "ingest_processes") == 2
                )

            await cluster.until(restarted, "a new ingest process")
        load.stopped = True
        await asyncio.gather(*clients)
        assert len(set(load.acknowledged)) == len(load.acknowledged) == 5 * load.batches
        stats = await cluster.get("/v1/stats")
        assert stats["jobs_by_status"]["pending"] == len(load.acknowledged)


async def test_ingest_processes_end_with_a_killed_node(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1, flags=[*FLAGS, "--ingest", "2"]) as cluster:
        (node,) = cluster.nodes
        started = children(node)
        assert len(started) == 2
        await node.kill()
        await until(cluster, lambda: not any(map(is_alive, started)), "the processes to end")
        await cluster.start_nodes()
        assert (await cluster.request("POST", "/v1/jobs", json=JOB))[0] == 201
