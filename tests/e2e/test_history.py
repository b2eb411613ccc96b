"""Finished jobs stay readable, with their results, when every node is killed right after, and come
to nodes that never saw them end."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from chaos.live.processes import LocalCluster, NodeChild, loopback_places
from quorate import Client, JobRequest
from tests.e2e.conftest import FLAGS, TASKS
from tests.e2e.test_failures import all_finished

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

# Enough journal for several snapshots, and more than the tail of 32 MiB that nodes keep for others:
# who joins later gets a snapshot.
JOBS = 1_200
BATCH = 100
TEXT = "x" * 18_000
PAYLOAD = msgspec.Raw(f'"{TEXT}"'.encode())


async def test_finished_jobs_survive_snapshots_and_the_death_of_all_nodes(tmp_path: Path) -> None:
    flags = [*FLAGS, "--snapshot-journal-mb", "8"]
    async with LocalCluster(tmp_path, flags=flags) as cluster, Client(cluster.urls) as client:
        await cluster.worker("w1", TASKS, slots=100)
        ids: list[str] = []
        for _ in range(JOBS // BATCH):
            jobs = [JobRequest(name="quick", payload=PAYLOAD) for _ in range(BATCH)]
            ids += [handle.id for handle in await client.submit_many(jobs)]
        assert (await all_finished(cluster, client))["completed"] == JOBS

        async def all_have_snapshots() -> bool:
            states = [await cluster.get("/v1/cluster", node) for node in cluster.nodes]
            return all(state["consensus"]["snapshot_index"] for state in states)

        await cluster.until(all_have_snapshots, "a snapshot on each node")
        await cluster.kill_all_nodes()
        await cluster.start_nodes()
        status = await cluster.get("/v1/cluster")
        assert status["consensus"]["snapshot_index"] > 0, "no snapshot was taken: the test is void"
        assert (await client.stats())["jobs_by_status"]["completed"] == JOBS
        # Every node has the whole history, not only the leader.
        digests = {node.raft: await digest_of(cluster, node, ids) for node in cluster.nodes}
        assert len(set(digests.values())) == 1, digests
        for job_id in ids[:: JOBS // 40]:
            view = await client.jobs.get(job_id)
            assert (view.status, view.output, view.attempt) == ("completed", TEXT, 1)

        # So has a node that joins now, and one whose file is damaged, each from the others.
        leader = await cluster.leader()
        damaged = next(node for node in cluster.nodes if node is not leader)
        await damaged.kill()
        file = damaged.data / "history.sqlite"
        file.with_name("history.sqlite-wal").unlink(missing_ok=True)
        file.write_bytes(b"\0rust" * 100_000)
        peers = [node.raft for node in cluster.nodes]
        flags = [*flags, "--history-fetch-mb-per-second", "100"]
        joined = NodeChild(4, loopback_places(1)[0], peers, cluster.folder, [*flags, "--join"], {})
        cluster.nodes.append(joined)
        await damaged.start()
        await joined.start()
        await client.members.add(joined.raft)
        for node in (damaged, joined):
            await cluster.until(lambda node=node: is_complete(cluster, node), "the history", 90)
            assert await digest_of(cluster, node, ids) == digests[damaged.raft]
            shown = await cluster.get("/v1/cluster/history", node)
            assert shown["rows_fetched"] > 0, "nothing was fetched: the test is void"
            assert shown["pieces_refused"] == 0
        assert len(list(damaged.data.glob("history.sqlite.damaged-*[0-9]"))) == 1
        assert "is set aside" in damaged.log_text()


async def is_complete(cluster: LocalCluster, node: NodeChild) -> bool:
    """Once its replica is up to date: before that nothing may be known to lack."""
    leader, asked = await cluster.leader(), await cluster.get("/v1/cluster", node)
    index = (await cluster.get("/v1/cluster", leader))["commit_index"]
    shown = await cluster.get("/v1/cluster/history", node)
    return bool(asked["applied_index"] >= index and shown["complete"])


async def digest_of(cluster: LocalCluster, node: NodeChild, ids: list[str]) -> str:
    """Of all jobs as one node tells them by itself; they must be those."""
    found: list[dict[str, object]] = []
    cursor = ""
    while True:
        page = await cluster.get(f"/v1/jobs?limit=100&consistency=stale{cursor}", node)
        found += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert {item["job_id"] for item in found} == set(ids)
    assert len(found) == len(ids)
    return hashlib.sha256(msgspec.json.encode(found, order="sorted")).hexdigest()
