"""Leadership is handed over under load, again and again: no submission is lost or left in doubt."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from chaos.live.processes import LocalCluster
from quorate import Client
from tests.e2e.conftest import STEADY, TASKS
from tests.e2e.test_failures import all_finished

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

# A node gives a leader that was replaced a quarter of a second to answer: one that stands still for
# that long leaves doubt, and says that it stood still.
FLAGS = [*STEADY, "--loop-stall-warn-ms", "100"]
TRANSFERS = 6
CLIENTS = 8


@pytest.mark.parametrize("flags", [FLAGS], ids=[""])
async def test_transfers_under_load_lose_nothing_and_doubt_nothing(
    cluster: LocalCluster, client: Client
) -> None:
    await cluster.worker("w1", TASKS, slots=100)
    stop = asyncio.Event()
    ids: list[str] = []
    refused: list[str] = []

    async def submit(session: aiohttp.ClientSession, at: int) -> None:
        """One try per job, at whichever node: what is refused must be refused for certain."""
        while not stop.is_set():
            at += 1
            url = cluster.nodes[at % len(cluster.nodes)].url + "/v1/jobs"
            async with session.post(url, json={"name": "quick", "payload": "x"}) as response:
                answer = await response.json()
                if response.status == 201:
                    ids.append(answer["job_id"])
                else:
                    refused.append(answer["code"])

    async with aiohttp.ClientSession() as session:
        clients = [asyncio.create_task(submit(session, n)) for n in range(CLIENTS)]
        for _ in range(TRANSFERS):
            before, leader = len(ids), await cluster.leader()

            async def loaded(before: int = before) -> bool:
                return len(ids) >= before + 100

            await cluster.until(loaded, "load")
            status, answer = await cluster.request("POST", "/v1/cluster/transfer", leader)
            assert status == 200, answer
            assert answer["leader_id"] != leader.raft
        stop.set()
        await asyncio.gather(*clients)
    doubts = refused.count("outcome_unknown")
    stood_still = any("stood still" in node.log_text() for node in cluster.nodes)
    assert doubts == 0 or stood_still, f"{doubts} submissions are left in doubt"
    assert len(set(ids)) == len(ids)
    completed = (await all_finished(cluster, client))["completed"]
    assert len(ids) <= completed <= len(ids) + doubts
