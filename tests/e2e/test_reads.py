"""Read levels on real processes: followers, a leader that was asleep, and no majority at all."""

from __future__ import annotations

import asyncio
import signal
from functools import partial

import pytest

from chaos.live.processes import LocalCluster, NodeChild
from quorate import Client
from tests.e2e.conftest import TASKS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


async def read(cluster: LocalCluster, node: NodeChild, job_id: str, level: str) -> tuple[int, str]:
    """Status code, and the job's status or the problem's code."""
    path = f"/v1/jobs/{job_id}?consistency={level}"
    status, answer = await cluster.request("GET", path, node, timeout_s=20.0)
    return status, answer["status"] if status == 200 else answer["code"]


async def test_every_node_reads_what_another_one_acknowledged(
    cluster: LocalCluster, client: Client
) -> None:
    """A finished job lies in each node's own history, a little later on disk."""
    await cluster.worker("w", TASKS, slots=8)
    for number in range(20):
        writer = cluster.nodes[number % 3]
        status, job = await cluster.request(
            "POST", "/v1/jobs", writer, json={"name": "quick", "payload": "x"}
        )
        assert status == 201
        for node in cluster.nodes:
            assert (await read(cluster, node, job["job_id"], "linearizable"))[0] == 200
        assert (await client.handle(job["job_id"]).wait(30)).status == "completed"
        answers = [await read(cluster, n, job["job_id"], "linearizable") for n in cluster.nodes]
        assert answers == [(200, "completed")] * 3


async def test_a_leader_that_slept_serves_nothing_it_missed(cluster: LocalCluster) -> None:
    """It wakes up with the reads already in its socket, still believing that it leads."""
    for _ in range(3):
        old = await cluster.leader()
        heir = next(node for node in cluster.nodes if node is not old)
        ids = []
        for _ in range(5):
            body = {"name": "quick", "delay_seconds": 3600}
            ids.append((await cluster.request("POST", "/v1/jobs", old, json=body))[1]["job_id"])
        old.signal(signal.SIGSTOP)
        try:
            await cluster.until(partial(another_leads, cluster, heir, old), "a new leader")
            for job_id in ids:
                path = f"/v1/jobs/{job_id}/cancel"
                assert (await cluster.request("POST", path, heir))[0] == 200
            reads = [
                asyncio.ensure_future(read(cluster, old, job_id, "linearizable"))
                for job_id in ids * 4
            ]
            await asyncio.sleep(0.2)  # they are on their way; nothing tells when they have arrived
        finally:
            old.signal(signal.SIGCONT)
        answers = set(await asyncio.gather(*reads))
        assert answers <= {(200, "cancelled"), (503, "no_quorum")}
        await cluster.ready()
        assert await read(cluster, old, ids[0], "linearizable") == (200, "cancelled")


async def another_leads(cluster: LocalCluster, node: NodeChild, old: NodeChild) -> bool:
    _, seen = await cluster.request("GET", "/v1/cluster", node)
    return seen["leader_id"] not in (None, old.raft)


async def test_without_a_majority_only_stale_reads_are_answered(cluster: LocalCluster) -> None:
    survivor = await cluster.leader()
    status, job = await cluster.request("POST", "/v1/jobs", survivor, json={"name": "quick"})
    assert status == 201
    for node in cluster.nodes:
        if node is not survivor:
            await node.kill()
    assert await read(cluster, survivor, job["job_id"], "linearizable") == (503, "no_quorum")
    assert await read(cluster, survivor, job["job_id"], "stale") == (200, "pending")

    async def gave_up() -> bool:
        return await read(cluster, survivor, job["job_id"], "leader") == (503, "no_quorum")

    await cluster.until(gave_up, "the cut-off leader to notice")
    assert await read(cluster, survivor, job["job_id"], "stale") == (200, "pending")
    await cluster.start_nodes()
    assert await read(cluster, survivor, job["job_id"], "linearizable") == (200, "pending")
