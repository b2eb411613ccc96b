"""`quorate drill` as an operator runs it, against a node, with real workers that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from quorate import Client
from quorate.testing import local_node

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[2]


async def test_the_loss_of_a_worker_is_rehearsed_and_nothing_stays(tmp_path: Path) -> None:
    async with local_node(worker_reconnect_grace_seconds=0.2) as url, Client(url) as client:
        others = [await client.submit("nobody", n) for n in range(20)]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "quorate", "drill", "worker-loss", "--nodes", url),
            *("--jobs", "200", "--report", str(tmp_path)),
            stdout=PIPE,
            stderr=PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, err.decode()
        told = json.loads(out)
        assert told["verdict"] == "PASS"
        assert told["rpo_jobs"] == 0
        criteria = {c["name"]: c for c in told["criteria"]}
        assert criteria["attempts of the dead worker's jobs"]["found"] == "2"
        assert criteria["test jobs"]["found"].startswith("200 of 200 ")
        assert criteria["random jobs"]["found"] == "20 equal"
        (page,) = tmp_path.glob("*.md")
        assert page.read_text().startswith("# Drill worker-loss: PASS")
        assert json.loads(page.with_suffix(".json").read_bytes()) == told
        stats = await client.stats()
        assert (stats["jobs_by_status"]["pending"], stats["dead_letters"]) == (len(others), 0)
        assert [view async for view in client.schedules.iterate()] == []
