"""A file system that fills up under a cluster of real processes, and empties again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.live.processes import LocalCluster
from quorate import Client
from tests.e2e.conftest import FLAGS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SIZE_MB = 160  # three nodes with two segments of 16 MiB each, and something to fill
PAYLOAD = "x" * 200_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or failed(command):
        pytest.skip("mounting a small file system is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def failed(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode != 0


def fill(path: Path) -> None:
    """Takes all that is left but a little for the logs of the processes."""
    free = shutil.disk_usage(path.parent).free
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - (2 << 20))


async def test_a_full_cluster_says_so_and_goes_on_when_there_is_space(small_disk: Path) -> None:
    async with LocalCluster(small_disk, flags=FLAGS) as cluster:
        filler = small_disk / "filler"
        fill(filler)
        taken, refusal = [], {}

        async def refused() -> bool:
            job = {"name": "nobody-runs-this", "payload": PAYLOAD}
            status, answer = await cluster.request("POST", "/v1/jobs", json=job)
            if status == 201:
                taken.append(answer["job_id"])
            refusal.update(answer)
            return status == 503 and answer["code"] == "disk_full"

        await cluster.until(refused, "the disks to be full", 60)
        assert "disk full: on" in refusal["detail"]
        assert all(node.is_running for node in cluster.nodes)

        async def is_counted() -> bool:
            metrics = await cluster.get("/metrics")
            return any(line.startswith("quorate_raft_disk_full 1") for line in metrics.splitlines())

        await cluster.until(is_counted, "the node that was asked to be full as well")
        filler.unlink()

        async def accepted() -> bool:
            status, _ = await cluster.request("POST", "/v1/jobs", json={"name": "small"})
            return status == 201

        await cluster.until(accepted, "writes to work again")
        await cluster.kill_all_nodes()
        await cluster.start_nodes()
        async with Client(cluster.urls) as client:
            counts = (await client.stats())["jobs_by_status"]
            assert counts["pending"] >= len(taken) + 1
        assert len(taken) > 10
