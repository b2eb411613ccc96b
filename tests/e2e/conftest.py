"""A cluster of real processes per test, and a client that follows its leader.

Tests run on machines that stand still for a second now and then. A leader that does is replaced, so
a single request may be refused with 503; the tests ask again, as every client does.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chaos.live.processes import LocalCluster, NodeChild
from quorate import Client

# A leader that is late is given more time than by default; one that died is noticed as fast.
FLAGS = ["--worker-reconnect-grace-seconds", "0.5"]
FLAGS += ["--election-min-ms", "700", "--election-max-ms", "1000"]
# For tests that need one leader from their begin to their end.
STEADY = [*FLAGS, "--election-min-ms", "2000", "--election-max-ms", "3000"]
TASKS = "tests.e2e.tasks:app"


@pytest.fixture(autouse=True, scope="session")
def quick_starts() -> Iterator[None]:
    """Half of what a process costs here is compiling what was compiled before, where the
    environment forbids to keep it, and reading certificates that nobody asks for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("SSL_CERT_FILE", os.devnull)
        patch.setenv("SSL_CERT_DIR", os.devnull)
        yield


@pytest.fixture
def flags() -> list[str]:
    """Of every node; a module or a test may have others."""
    return FLAGS


@pytest.fixture
async def cluster(tmp_path: Path, flags: list[str]) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, flags=flags) as running:
        yield running


@pytest.fixture
async def client(cluster: LocalCluster) -> AsyncIterator[Client]:
    async with Client(cluster.urls) as connected:
        yield connected


async def insist(
    cluster: LocalCluster, method: str, path: str, node: NodeChild | None = None, **options: Any
) -> tuple[int, Any]:
    """The first answer that is not 503, which always means: not applied."""
    answer: tuple[int, Any] = (503, None)

    async def given() -> bool:
        nonlocal answer
        try:
            answer = await cluster.request(method, path, node, **options)
        except aiohttp.ClientConnectorError:
            return False
        return answer[0] != 503

    await cluster.until(given, f"an answer to {method} {path}")
    return answer
