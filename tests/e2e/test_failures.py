"""kill -9 and SIGSTOP on real processes: nothing acknowledged is lost, nothing completes twice."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from chaos.live.processes import LocalCluster
from quorate import Client, Handle, JobRequest
from tests.e2e.conftest import FLAGS, TASKS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

BATCH = 500
BRIEF_TTL = [*FLAGS, "--worker-ttl-seconds", "1.5"]


def quick_jobs(count: int) -> list[JobRequest]:
    return [JobRequest(name="quick", payload=msgspec.Raw(b'"x"')) for _ in range(count)]


async def all_finished(
    cluster: LocalCluster, client: Client, seconds: float = 90
) -> dict[str, int]:
    async def settled() -> bool:
        counts = (await client.stats())["jobs_by_status"]
        return counts["pending"] + counts["running"] == 0

    await cluster.until(settled, "all jobs to finish", seconds)
    counts: dict[str, int] = (await client.stats())["jobs_by_status"]
    return counts


async def running_on(client: Client, handles: list[Handle[object]], worker_name: str) -> list[str]:
    workers = {w.worker_id: w.name for w in await client.workers.list()}
    views = [await handle.job() for handle in handles]
    return [
        v.job_id for v in views if v.status == "running" and workers.get(v.worker_id) == worker_name
    ]


async def test_jobs_of_a_killed_worker_run_again_elsewhere(
    cluster: LocalCluster, client: Client
) -> None:
    victim = await cluster.worker("victim", TASKS, slots=4)
    ended = await client.submit("quick", "x")
    await ended.wait(60)
    handles: list[Handle[object]] = [ended]
    handles += [await client.submit("slow_at_first", max_retries=3) for _ in range(3)]

    async def busy() -> bool:
        return len(await running_on(client, handles, "victim")) == 3

    await cluster.until(busy, "the victim to be busy")
    await cluster.worker("heir", TASKS, slots=4)
    held = await running_on(client, handles, "victim")
    await victim.kill()
    views = [await handle.wait(60) for handle in handles]
    assert [view.status for view in views] == ["completed"] * 4
    assert {view.job_id for view in views if view.attempt == 2} == set(held)
    timeline = await client.jobs.timeline(held[-1])
    assert "lost" in {event.event for event in timeline}


@pytest.mark.parametrize("flags", [BRIEF_TTL], ids=[""])
async def test_a_late_answer_of_a_lost_worker_is_refused(
    cluster: LocalCluster, client: Client, tmp_path: Path
) -> None:
    """The job ends when the test says so: not before its worker sleeps, and then with another."""
    sleeper = await cluster.worker("sleeper", TASKS, slots=1)
    handle = await client.submit("gated", str(tmp_path / "gate"))

    async def running() -> bool:
        return await handle.status() == "running"

    await cluster.until(running, "the job to run")
    sleeper.signal(signal.SIGSTOP)
    await cluster.worker("awake", TASKS, slots=1)

    async def moved() -> bool:
        return bool(await running_on(client, [handle], "awake"))

    await cluster.until(moved, "the job to run on the other worker")
    (tmp_path / "gate").touch()
    view = await handle.wait(60)
    sleeper.signal(signal.SIGCONT)
    assert view.status == "completed"
    assert view.output == view.attempt >= 2
    status, problem = await cluster.request(
        "PUT", f"/v1/jobs/{handle.id}/complete", json={"attempt": 1, "output": "late"}
    )
    assert (status, problem["code"]) == (409, "stale_attempt")

    async def back() -> bool:
        return len(await client.workers.list()) == 2

    await cluster.until(back, "the sleeper to register anew")
    assert (await handle.job()).output == view.output


async def test_the_leader_dies_under_load_and_nothing_is_lost_or_doubled(
    cluster: LocalCluster, client: Client, tmp_path: Path
) -> None:
    await cluster.worker("w1", TASKS, slots=50, env={"E2E_FOLDER": str(tmp_path)})
    handles: list[Handle[object]] = []

    async def load(batches: int) -> None:
        for _ in range(batches):
            handles.extend(await client.submit_many(quick_jobs(100)))

    loading = asyncio.create_task(load(40))

    async def half_way() -> bool:
        return len(handles) >= 1_000

    await cluster.until(half_way, "load")
    leader = await cluster.leader()
    await leader.kill()
    await loading
    assert await cluster.leader() is not leader
    counts = await all_finished(cluster, client)
    ids = [handle.id for handle in handles]
    assert len(set(ids)) == 4_000
    assert counts["completed"] == 4_000, counts
    executions = Counter(line.split()[0] for line in (tmp_path / "executions").open())
    assert set(ids) == set(executions)


async def test_all_nodes_killed_at_once_in_the_middle_of_20000_submissions(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    acknowledged: list[str] = []
    half_way = asyncio.Event()

    async def submit() -> None:
        async with Client(cluster.urls) as submitter:
            for _ in range(20_000 // BATCH):
                handles = await submitter.submit_many(quick_jobs(BATCH))
                acknowledged.extend(handle.id for handle in handles)
                if len(acknowledged) >= 10_000:
                    half_way.set()

    submitting = asyncio.create_task(submit())
    waiting = asyncio.create_task(half_way.wait())
    await asyncio.wait([submitting, waiting], return_when=asyncio.FIRST_COMPLETED)
    await cluster.kill_all_nodes()
    assert submitting.cancel(), submitting  # it would go on when the nodes are back
    await asyncio.wait([submitting, waiting])
    assert 10_000 <= len(acknowledged) < 20_000, "the kill did not come in the middle"
    await cluster.start_nodes()
    await cluster.worker("w1", TASKS, slots=200, env={"E2E_FOLDER": str(tmp_path)})
    async with Client(cluster.urls) as client:
        counts = await all_finished(cluster, client)
        # A batch in flight at the kill may have been committed without an answer: more, never less.
        assert counts["completed"] in (len(acknowledged), len(acknowledged) + BATCH), counts
        executions = Counter(line.split()[0] for line in (tmp_path / "executions").open())
        assert set(acknowledged) <= set(executions)
        assert max(executions.values()) == 1, "a job ran twice though no worker was lost"
        for job_id in acknowledged[:: len(acknowledged) // 50]:
            view = await client.jobs.get(job_id)
            # An attempt that never reached the worker is taken back when the leader changes.
            assert (view.status, view.failures, view.output) == ("completed", 0, "x")


async def test_a_schedule_fires_each_occurrence_once_through_failovers(
    cluster: LocalCluster, client: Client
) -> None:
    await cluster.worker("w1", TASKS, slots=4)
    await client.schedules.create(
        "quick", every=0.5, id="twice-a-second", payload="t", overlap="allow_all"
    )
    for _ in range(2):
        leader = await cluster.leader()
        before = (await client.schedules.get("twice-a-second")).run_count
        await leader.kill()

        async def fired_on(before: int = before) -> bool:
            return (await client.schedules.get("twice-a-second")).run_count >= before + 3

        await cluster.until(fired_on, "the schedule to go on")
        await leader.start()
        await cluster.ready()
    await client.schedules.pause("twice-a-second", "count")
    await all_finished(cluster, client)
    schedule = await client.schedules.get("twice-a-second")
    nominal = [
        round(job.nominal_at.timestamp() * 1000)
        async for job in client.jobs.iterate(name="quick", limit=500)
        if job.nominal_at is not None
    ]
    nominal.sort()
    assert len(nominal) == schedule.run_count >= 6
    assert {b - a for a, b in pairwise(nominal)} == {500}


async def test_a_killed_node_comes_back_equal(cluster: LocalCluster, client: Client) -> None:
    leader = await cluster.leader()
    follower = next(node for node in cluster.nodes if node is not leader)
    await client.submit_many(quick_jobs(200))
    await follower.kill()
    await client.submit_many(quick_jobs(200))
    await follower.start()
    await cluster.ready()

    async def equal() -> bool:
        seen = set()
        for node in cluster.nodes:
            status = await cluster.get("/v1/cluster", node)
            seen.add((status["applied_index"], status["digest"]))
        return len(seen) == 1

    await cluster.until(equal, "equal digests")


async def test_sigterm_hands_leadership_over_and_exits_cleanly(
    cluster: LocalCluster, client: Client
) -> None:
    leader = await cluster.leader()
    assert await leader.stop() == 0
    assert "handed leadership" in leader.log_text(), leader.log_text()
    await client.submit("quick", "after")
    assert await cluster.leader() is not leader
