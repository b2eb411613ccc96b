"""A cluster of real processes per test, and a client that follows its leader."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chaos.live.processes import LocalCluster
from quorate import Client

FLAGS = ["--worker-ttl-seconds", "1.5", "--worker-reconnect-grace-seconds", "0.5"]
TASKS = "tests.e2e.tasks:app"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, flags=FLAGS) as running:
        yield running


@pytest.fixture
async def client(cluster: LocalCluster) -> AsyncIterator[Client]:
    async with Client(cluster.urls) as connected:
        yield connected
