"""Finished jobs stay readable, with their results, when every node is killed right after."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from chaos.live.processes import LocalCluster
from quorate import Client, JobRequest
from tests.e2e.conftest import FLAGS, TASKS
from tests.e2e.test_failures import all_finished

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

JOBS = 12_000  # enough journal for several snapshots at the smallest limit
BATCH = 1_000
TEXT = "x" * 300
PAYLOAD = msgspec.Raw(f'"{TEXT}"'.encode())


async def test_finished_jobs_survive_snapshots_and_the_death_of_all_nodes(tmp_path: Path) -> None:
    flags = [*FLAGS, "--snapshot-journal-mb", "1"]
    async with LocalCluster(tmp_path, flags=flags) as cluster, Client(cluster.urls) as client:
        await cluster.worker("w1", TASKS, slots=500)
        ids: list[str] = []
        for _ in range(JOBS // BATCH):
            jobs = [JobRequest(name="quick", payload=PAYLOAD) for _ in range(BATCH)]
            ids += [handle.id for handle in await client.submit_many(jobs)]
        assert (await all_finished(cluster, client))["completed"] == JOBS
        await cluster.kill_all_nodes()
        await cluster.start_nodes()
        status = await cluster.get("/v1/cluster")
        assert status["consensus"]["snapshot_index"] > 0, "no snapshot was taken: the test is void"
        assert (await client.stats())["jobs_by_status"]["completed"] == JOBS
        # Every node has the whole history, not only the leader.
        for node in cluster.nodes:
            listed = await every_id(cluster, node.url)
            assert listed == set(ids)
        for job_id in ids[:: JOBS // 40]:
            view = await client.jobs.get(job_id)
            assert (view.status, view.output, view.attempt) == ("completed", TEXT, 1)


async def every_id(cluster: LocalCluster, url: str) -> set[str]:
    """All ids that one node lists by itself."""
    node = next(n for n in cluster.nodes if n.url == url)
    found: set[str] = set()
    cursor = ""
    while True:
        path = f"/v1/jobs?limit=500&consistency=stale{cursor}"
        page = await cluster.get(path, node)
        found |= {item["job_id"] for item in page["items"]}
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"
