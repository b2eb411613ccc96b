"""Read levels on real processes: followers, a leader that was asleep, and no majority at all."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from chaos.live.processes import LocalCluster, NodeChild, free_ports
from quorate import Client
from tests.e2e.conftest import TASKS, insist

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


async def read(cluster: LocalCluster, node: NodeChild, job_id: str, level: str) -> tuple[int, str]:
    """Status code, and the job's status or the problem's code."""
    path = f"/v1/jobs/{job_id}?consistency={level}"
    status, answer = await cluster.request("GET", path, node, timeout_s=20.0)
    return status, answer["status"] if status == 200 else answer["code"]


async def read_at_last(cluster: LocalCluster, node: NodeChild, job_id: str) -> tuple[int, str]:
    """What a linearizable read finds when there is a leader."""
    path = f"/v1/jobs/{job_id}?consistency=linearizable"
    status, answer = await insist(cluster, "GET", path, node)
    return status, answer["status"] if status == 200 else answer["code"]


async def test_every_node_reads_what_another_one_acknowledged(
    cluster: LocalCluster, client: Client
) -> None:
    """A finished job lies in each node's own history, a little later on disk."""
    await cluster.worker("w", TASKS, slots=8)
    for number in range(20):
        writer = cluster.nodes[number % 3]
        status, job = await insist(
            cluster, "POST", "/v1/jobs", writer, json={"name": "quick", "payload": "x"}
        )
        assert status == 201
        for node in cluster.nodes:
            assert (await read_at_last(cluster, node, job["job_id"]))[0] == 200
        assert (await client.handle(job["job_id"]).wait(60)).status == "completed"
        answers = [await read_at_last(cluster, node, job["job_id"]) for node in cluster.nodes]
        assert answers == [(200, "completed")] * 3


async def test_a_leader_that_slept_serves_nothing_it_missed(cluster: LocalCluster) -> None:
    """It wakes up with the reads already in its socket, still believing that it leads."""
    for _ in range(3):
        old = await cluster.leader()
        heir = next(node for node in cluster.nodes if node is not old)
        ids = []
        for _ in range(5):
            body = {"name": "quick", "delay_seconds": 3600}
            _, job = await insist(cluster, "POST", "/v1/jobs", old, json=body)
            ids.append(job["job_id"])
        old.signal(signal.SIGSTOP)
        try:
            await cluster.until(partial(another_leads, cluster, heir, old), "a new leader")
            for job_id in ids:
                path = f"/v1/jobs/{job_id}/cancel"
                assert (await insist(cluster, "POST", path, heir))[0] == 200
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
        assert await read_at_last(cluster, old, ids[0]) == (200, "cancelled")


async def another_leads(cluster: LocalCluster, node: NodeChild, old: NodeChild) -> bool:
    _, seen = await cluster.request("GET", "/v1/cluster", node)
    return seen["leader_id"] not in (None, old.raft)


class Partition:
    """Relays before every node's raft port. While `cut`, what would go to or come from one of the
    nodes waits, and nobody is told."""

    def __init__(self, cluster: LocalCluster, victim: NodeChild) -> None:
        self._victim = victim
        self._joined = asyncio.Event()
        self._joined.set()
        self._inner: dict[str, str] = {}
        for node, port in zip(cluster.nodes, free_ports(len(cluster.nodes)), strict=True):
            self._inner[node.raft] = f"127.0.0.1:{port}"
            node.argv[node.argv.index("--listen") + 1] = self._inner[node.raft]
            node.argv += ["--advertise", node.raft]

    @contextlib.asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as servers:
            for outer, inner in self._inner.items():
                host, port = outer.split(":")
                accept = partial(self._accept, outer, inner)
                await servers.enter_async_context(
                    await asyncio.start_server(accept, host, int(port))
                )
            yield
            self.heal()

    def cut(self) -> None:
        self._joined.clear()

    def heal(self) -> None:
        self._joined.set()

    async def _accept(
        self, outer: str, inner: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        host, port = inner.split(":")
        with contextlib.suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
            ends = {outer}
            await asyncio.gather(
                self._pass(reader, inner_writer, ends), self._pass(inner_reader, writer, ends)
            )

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: set[str]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self._victim.raft.encode() in data[:1000]:
                    ends.add(self._victim.raft)  # each side says its id when it connects
                if self._victim.raft in ends:
                    await self._joined.wait()
                writer.write(data)
        writer.close()


async def test_a_leader_that_is_cut_off_serves_nothing_it_missed(tmp_path: Path) -> None:
    """Its followers elect another one while it goes on believing; clients reach both."""
    hasty = ["--heartbeat-ms", "40", "--election-min-ms", "150", "--election-max-ms", "300"]
    cluster = LocalCluster(tmp_path, flags=hasty)
    old, heir = cluster.nodes[:2]
    partition = Partition(cluster, old)
    async with partition.relaying(), cluster:
        for _ in range(2):
            body = {"name": "quick", "delay_seconds": 3600}
            _, job = await insist(cluster, "POST", "/v1/jobs", heir, json=body)
            await cluster.until(partial(made_leader, cluster, old), "the node to lead")
            partition.cut()
            await cluster.until(partial(another_leads, cluster, heir, old), "a new leader")
            path = f"/v1/jobs/{job['job_id']}"
            assert (await insist(cluster, "POST", f"{path}/cancel", heir))[0] == 200
            reads = [
                asyncio.ensure_future(read(cluster, old, job["job_id"], "linearizable"))
                for _ in range(50)
            ]
            answers = set(await asyncio.gather(*reads))
            assert answers <= {(200, "cancelled"), (503, "no_quorum")}
            partition.heal()
            await cluster.ready()
            assert await read_at_last(cluster, old, job["job_id"]) == (200, "cancelled")


async def made_leader(cluster: LocalCluster, node: NodeChild) -> bool:
    await cluster.request("POST", "/v1/cluster/transfer", node, json={"to": node.raft})
    _, seen = await cluster.request("GET", "/v1/cluster", node)
    return bool(seen["is_leader"])


async def test_without_a_majority_only_stale_reads_are_answered(cluster: LocalCluster) -> None:
    survivor = await cluster.leader()
    status, job = await insist(cluster, "POST", "/v1/jobs", survivor, json={"name": "quick"})
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
    assert await read_at_last(cluster, survivor, job["job_id"]) == (200, "pending")
