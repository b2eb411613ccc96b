"""What an operator does about a node that refuses its data (docs/membership.md)."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import aiohttp

from chaos.live.processes import LocalCluster, NodeChild

START_S = 60.0
CHANGE_S = 60.0
BETWEEN_S = 0.2


async def started(cluster: LocalCluster, node: NodeChild) -> bool:
    """Whether it became ready; False when it ended by itself."""
    await node.start()
    async with asyncio.timeout(START_S):
        while node.is_running:
            with suppress(aiohttp.ClientError, TimeoutError):
                status, _ = await cluster.request("GET", "/readyz", node, timeout_s=2.0)
                if status == 200:
                    return True
            await asyncio.sleep(BETWEEN_S)
    return False


async def replaced(cluster: LocalCluster, node: NodeChild) -> None:
    """Removes a node that has ended, starts it without its data, and lets it in again."""
    members = f"/v1/cluster/members/{node.node_id}"
    await _change(cluster, node, "DELETE", members, None)
    aside = 1
    while node.data.with_suffix(f".rotten{aside}").exists():
        aside += 1
    node.data.rename(node.data.with_suffix(f".rotten{aside}"))
    if "--join" not in node.argv:
        node.argv.append("--join")
    await node.start()
    await _change(cluster, node, "POST", "/v1/cluster/members", {"id": node.node_id})
    await cluster.ready(CHANGE_S)

    async def votes() -> bool:
        return (await _standings(cluster)).get(node.node_id) == "voter"

    await cluster.until(votes, f"{node.name} to vote", CHANGE_S)


async def _change(
    cluster: LocalCluster, node: NodeChild, method: str, path: str, body: object
) -> None:
    """Asks until the members are as they should be, whatever becomes of single answers."""

    async def done() -> bool:
        with suppress(aiohttp.ClientError, TimeoutError):
            await cluster.request(method, path, _another(cluster, node), json=body, timeout_s=10.0)
        return (node.node_id in await _standings(cluster)) == (method == "POST")

    await cluster.until(done, f"{method} {path}", CHANGE_S)


def _another(cluster: LocalCluster, node: NodeChild) -> NodeChild:
    return next(other for other in cluster.nodes if other is not node and other.is_running)


async def _standings(cluster: LocalCluster) -> dict[str, str]:
    answer = await cluster.get("/v1/cluster/members?consistency=linearizable")
    return {member["id"]: member["standing"] for member in answer["members"]}
