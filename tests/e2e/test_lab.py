"""The scheduler lab's exercises as a student types them: one node, two workers, plain routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chaos.live.processes import Child, LocalCluster
from tests.e2e.conftest import FLAGS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


class Lab:
    """One node and the students' two workers."""

    def __init__(self, cluster: LocalCluster, workers: list[Child]) -> None:
        self.cluster = cluster
        self.workers = workers

    async def submit(self, **job: Any) -> str:
        status, answer = await self.cluster.request("POST", "/jobs", json=job)
        assert status == 201, answer
        return str(answer["job_id"])

    async def job(self, job_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self.cluster.get(f"/jobs/{job_id}")
        return answer

    async def becomes(self, job_id: str, status: str, seconds: float = 60) -> dict[str, Any]:
        async def reached() -> bool:
            return (await self.job(job_id))["status"] == status

        await self.cluster.until(reached, f"job {job_id} to be {status}", seconds)
        return await self.job(job_id)

    async def metric(self, name: str) -> float:
        _, text = await self.cluster.request("GET", "/metrics")
        lines = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        assert lines, f"/metrics has no {name}"
        return float(lines[0].split()[1])


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with LocalCluster(tmp_path, nodes=1, flags=FLAGS) as cluster:
        students = (cluster.worker(f"student-{i}", slots=4) for i in (1, 2))
        yield Lab(cluster, await asyncio.gather(*students))


async def test_exercise_1_an_immediate_job_runs_on_some_worker(lab: Lab) -> None:
    job_id = await lab.submit(job_type="send_email", execution_time_ms=50, fail_rate=0)
    job = await lab.becomes(job_id, "completed")
    assert job["job_type"] == "send_email"
    assert job["attempt"] == 1
    assert job["worker_id"] in {worker["worker_id"] for worker in await lab.cluster.get("/workers")}
    assert job["scheduled_at"] <= job["started_at"]
    assert job["error_message"] is None


async def test_exercise_2_a_delayed_job_waits_for_its_time(lab: Lab) -> None:
    report = {"job_type": "report", "execution_time_ms": 10, "fail_rate": 0}
    tomorrow = await lab.submit(**report, delay_seconds=86_400)
    assert (await lab.job(tomorrow))["status"] == "pending"
    stats = await lab.cluster.get("/stats")
    assert stats["jobs_by_status"]["pending"] == 1
    job = await lab.becomes(await lab.submit(**report, delay_seconds=1), "completed")
    assert job["started_at"] >= job["scheduled_at"]


async def test_exercise_3_a_cron_job_tells_its_next_run(lab: Lab) -> None:
    job_id = await lab.submit(
        job_type="backup", execution_time_ms=10, fail_rate=0, cron_expression="*/5 * * * *"
    )
    job = await lab.job(job_id)
    assert job["status"] == "pending"
    assert job["next_run"].endswith(":00.000Z")
    status, problem = await lab.cluster.request(
        "POST", "/jobs", json={"job_type": "backup", "cron_expression": "61 * * * *"}
    )
    assert (status, problem["code"]) == (422, "validation")
    assert problem["errors"][0]["pointer"] == "/cron_expression"


async def test_exercise_4_a_failing_job_is_retried_and_then_failed(lab: Lab) -> None:
    job_id = await lab.submit(job_type="flaky", execution_time_ms=5, fail_rate=1, max_retries=1)
    job = await lab.becomes(job_id, "failed")
    assert job["attempt"] == 2
    assert "simulated failure" in job["error_message"]
    assert await lab.metric("job_retries_total") == 1
    assert await lab.metric("jobs_failed_total") == 1
    assert await lab.metric("jobs_scheduled_total") == 1
    for name in ("jobs_completed_total", "jobs_pending_total", "active_workers_total"):
        await lab.metric(name)
    for name in ("job_duration_seconds_count", "job_queue_wait_seconds_count"):
        assert await lab.metric(name) >= 1


async def test_exercise_5_a_killed_workers_job_moves_to_the_other(lab: Lab) -> None:
    names = {w["worker_id"]: w["name"] for w in await lab.cluster.get("/workers")}
    # Long enough for the kill to come in its midst.
    job_id = await lab.submit(job_type="long", execution_time_ms=3000, fail_rate=0)
    job = await lab.becomes(job_id, "running")
    victim = next(w for w in lab.workers if w.name == names[job["worker_id"]])
    await victim.kill()
    moved = await lab.becomes(job_id, "completed")
    assert moved["attempt"] == 2
    assert moved["worker_id"] != job["worker_id"]
    stats = await lab.cluster.get("/stats")
    assert (stats["active_workers"], stats["queue_length"]) == (1, 0)
    assert stats["jobs_by_status"]["completed"] == 1
