"""Members of a running cluster of real processes: added, removed, replaced, under load."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from chaos.live.processes import LocalCluster, NodeChild, free_ports, loopback_places
from quorate import Client, QuorateError
from tests.e2e.conftest import FLAGS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


async def newcomer(cluster: LocalCluster) -> NodeChild:
    """One more node, started and waiting to be let in."""
    place = loopback_places(1, ())[0]
    peers = [node.raft for node in cluster.nodes if node.is_running]
    number = len(cluster.nodes) + 1
    node = NodeChild(number, place, peers, cluster.folder, [*FLAGS, "--join"], {})
    cluster.nodes.append(node)
    await node.start()
    return node


@contextlib.asynccontextmanager
async def submitting(client: Client) -> AsyncIterator[list[str]]:
    """Jobs are submitted all the time; every one that was acknowledged is in the list."""
    ids: list[str] = []

    async def go_on() -> None:
        while True:
            ids.append((await client.submit("later", delay=3600)).id)

    task = asyncio.create_task(go_on())
    yield ids
    assert not task.done(), task
    task.cancel()


async def standings(client: Client) -> dict[str, str]:
    return {m.id: m.standing for m in await client.members.list(consistency="linearizable")}


async def reads_all(node: NodeChild, ids: list[str]) -> bool:
    async with Client(node.url, consistency="linearizable") as alone:
        items = await alone.jobs.status_many(ids[-400:])
    return all(item.ok for item in items)


async def test_a_cluster_grows_shrinks_and_loses_its_leader_on_purpose(
    cluster: LocalCluster, client: Client
) -> None:
    first = [node.raft for node in cluster.nodes]
    fourth = await newcomer(cluster)
    async with submitting(client) as ids:
        await client.members.add(fourth.raft)
        voter = await client.members.wait_voting(fourth.raft)
        assert voter.connected
        leader = await cluster.leader()
        await client.members.remove(leader.raft)
        assert (await cluster.leader()) is not leader
        acknowledged = len(ids)

        async def more() -> bool:
            return len(ids) > acknowledged + 20

        await cluster.until(more, "submissions to go on")
    left = sorted({*first, fourth.raft} - {leader.raft})
    assert await standings(client) == dict.fromkeys(left, "voter")
    for node in cluster.nodes:
        if node is not leader:
            assert await reads_all(node, ids)
    await leader.stop()


async def test_a_dead_node_is_replaced(cluster: LocalCluster, client: Client) -> None:
    leader = await cluster.leader()
    dead = next(node for node in cluster.nodes if node is not leader)
    await dead.kill()
    heir = await newcomer(cluster)
    async with submitting(client) as ids:
        await client.members.replace(dead.raft, heir.raft)
        await client.members.replace(dead.raft, heir.raft)  # does no harm
    alive = [node for node in cluster.nodes if node is not dead]
    assert await standings(client) == dict.fromkeys(sorted(n.raft for n in alive), "voter")
    second = next(node for node in alive if node is not heir)
    await second.kill()  # the new one counts: two of three are a majority
    await cluster.until(lambda: is_writable(client), "a leader among the two")
    assert await reads_all(heir, ids)


async def is_writable(client: Client) -> bool:
    try:
        await client.submit("later", delay=3600)
    except QuorateError:
        return False
    return True


async def test_a_second_change_waits_for_the_first(cluster: LocalCluster, client: Client) -> None:
    absent, other = (f"127.0.0.1:{port}" for port in free_ports(2))
    await client.members.add(absent)  # never started, so it stays joining
    status, problem = await cluster.request(
        "POST", "/v1/cluster/members", cluster.nodes[1], json={"id": other}
    )
    assert (status, problem["code"]) == (409, "change_pending")
    assert absent in problem["detail"]
    await client.members.remove(absent)
    assert set(await standings(client)) == {node.raft for node in cluster.nodes}
