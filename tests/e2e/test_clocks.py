"""Clocks that are wrong, on three real processes: nothing fires early, the cluster goes on."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chaos.live.processes import ROOT, LocalCluster, NodeChild
from quorate import Client
from tests.e2e.conftest import STEADY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

HOUR_MS = 3_600_000
PROGRAM = ROOT / "chaos" / "live" / "hurt_node.py"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, flags=STEADY, program=PROGRAM) as running:
        yield running


def shift(node: NodeChild, off_ms: int) -> None:
    """From now on the node's wall clock is off by this much."""
    fresh = node.data / "clock.new"
    fresh.write_text(str(off_ms))
    fresh.replace(node.data / "clock")


async def clock_is(cluster: LocalCluster, node: NodeChild, **fields: Any) -> Mapping[str, Any]:
    """The node's own account of its clock, once it has these fields."""

    async def so() -> bool:
        found = await cluster.get("/v1/cluster/clock", node)
        return all(found[name] == value for name, value in fields.items())

    await cluster.until(so, f"the clock of {node.name} to be {fields}")
    answer: Mapping[str, Any] = await cluster.get("/v1/cluster/clock", node)
    return answer


async def quorate(cluster: LocalCluster, *argv: str) -> Any:
    """What the command line prints."""
    command = [sys.executable, "-m", "quorate", *argv, "--nodes", cluster.urls]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, cwd=ROOT)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(out)


async def metric(cluster: LocalCluster, node: NodeChild, name: str) -> float:
    _, text = await cluster.request("GET", "/metrics", node)
    [line] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS], ids=["forward", "back"])
async def test_a_leader_whose_clock_jumps_is_not_followed(
    cluster: LocalCluster, client: Client, jump_ms: int
) -> None:
    worker = await cluster.worker("w", "tests.e2e.tasks:app")
    later = await client.submit("quick", "one", delay=1_800)
    leader = await cluster.leader()
    shift(leader, jump_ms)
    answer = await clock_is(cluster, leader, standing="refused")
    assert abs(answer["off_seconds"] - jump_ms / 1000) < 5
    assert "refused" in (await cluster.get("/v1/cluster", leader))["warnings"][0]
    assert "refused" in (await cluster.get("/readyz?verbose", leader))["warnings"][0]
    assert await metric(cluster, leader, "clock_refused") == 1
    assert abs(await metric(cluster, leader, "clock_jump_seconds") - jump_ms / 1000) < 5

    async def is_told() -> bool:
        return "the wall clock jumped" in leader.log_text()

    await cluster.until(is_told, "the log to tell it")
    # Time runs on as before: what is due in a second is done, what is due in half an hour waits.
    soon = await client.submit("quick", "two", delay=1)
    assert await soon.result(60) == "two"
    assert (await later.job()).status == "pending"
    assert (await cluster.leader()).name == leader.name
    shift(leader, 0)
    await clock_is(cluster, leader, standing="majority", off_seconds=0.0)
    assert worker.is_running


async def test_a_node_that_starts_with_a_wrong_clock_leads_with_the_majoritys_time(
    cluster: LocalCluster, client: Client
) -> None:
    await cluster.worker("w", "tests.e2e.tasks:app")
    later = await client.submit("quick", "one", delay=1_800)
    wrong = next(node for node in cluster.nodes if node.name != "n1")
    await wrong.stop()
    shift(wrong, HOUR_MS)
    await wrong.start()
    await cluster.ready()
    await clock_is(cluster, wrong, standing="refused")
    await client.transfer_leadership(wrong.raft)
    assert (await cluster.leader()).name == wrong.name
    soon = await client.submit("quick", "two", delay=1)
    assert await soon.result(60) == "two"
    assert (await later.job()).status == "pending"


async def test_an_operator_can_follow_the_leaders_clock(
    cluster: LocalCluster, client: Client
) -> None:
    await cluster.worker("w", "tests.e2e.tasks:app")
    later = await client.submit("quick", "three", delay=1_800)
    leader = await cluster.leader()
    shift(leader, HOUR_MS)
    await clock_is(cluster, leader, standing="refused")

    async def both_are_known() -> bool:
        return len((await cluster.get("/v1/cluster/clock", leader))["peers"]) == 2

    await cluster.until(both_are_known, "the leader to know both other clocks")
    answer = await quorate(cluster, "cluster", "clock")
    assert (answer["standing"], len(answer["peers"])) == ("refused", 2)
    answer = await quorate(cluster, "cluster", "clock", "--accept")
    assert (answer["standing"], answer["node_id"]) == ("accepted", leader.raft)
    assert (await client.clock.get(consistency="leader")).standing == "accepted"
    assert await later.result(60) == "three"


async def test_a_whole_cluster_that_wakes_up_later_goes_on_at_once(
    cluster: LocalCluster, client: Client
) -> None:
    await cluster.worker("w", "tests.e2e.tasks:app")
    later = await client.submit("quick", "four", delay=1_800)
    for node in cluster.nodes:
        shift(node, HOUR_MS)
    assert await later.result(60) == "four"
    for node in cluster.nodes:
        await clock_is(cluster, node, standing="majority")
