from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from api_fakes import FakeNode, serving

from cluster.machine.apply import Strictness

Leader = tuple[FakeNode, TestClient[Any, Any]]


@pytest.fixture(autouse=True)
def bugs_are_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Strictness, "raise_bugs", True)


@pytest.fixture
async def leader(tmp_path: Path) -> AsyncIterator[Leader]:
    async with serving(tmp_path) as pair:
        yield pair


@pytest.fixture
def node(leader: Leader) -> FakeNode:
    return leader[0]


@pytest.fixture
def client(leader: Leader) -> TestClient[Any, Any]:
    return leader[1]
