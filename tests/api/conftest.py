from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_fakes import Api, FakeNode, serving

from cluster.machine.apply import Strictness


@pytest.fixture(autouse=True)
def bugs_are_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Strictness, "raise_bugs", True)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A node that leads, and a client of it."""
    async with serving(tmp_path) as served:
        yield served


@pytest.fixture
def node(api: Api) -> FakeNode:
    return api.node


@pytest.fixture
async def pair(tmp_path):
    """`(leader, follower)`; the follower's own state stays empty, so one sees who answered."""
    async with serving(tmp_path / "a") as leader, serving(tmp_path / "b") as follower:
        leader.node.raft.node_id = leader.node.raft.leader_id = "a"
        leader.node.raft.leader_http = leader.url
        leader.node.raft.applied_index = 1000
        follower.node.raft.node_id = "b"
        follower.node.raft.follow("a", leader.url)
        yield leader, follower
