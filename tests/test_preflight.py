"""A node that must not use a folder opens nothing in it: its history would be changed by that."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import Node, Settings
from cluster.consensus.folder import IDENTITY_FILE, LOCK_FILE, DataFolder
from cluster.consensus.identity import encode_identity, new_identity
from cluster.consensus.storage import FILES
from cluster.preflight import NodeStartError
from quorate.testing import free_port


async def refusal(data: Path) -> str:
    http, raft = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with pytest.raises(NodeStartError) as caught:
        await Node(Settings(http=http, listen=raft, data=data)).start()
    return str(caught.value)


async def test_a_folder_of_another_node_is_left_alone(tmp_path: Path) -> None:
    theirs = new_identity(bytes(16), "127.0.0.1:1", ("127.0.0.1:1",))
    (tmp_path / IDENTITY_FILE).write_bytes(encode_identity(theirs))
    assert "belongs to node 127.0.0.1:1" in await refusal(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {IDENTITY_FILE, LOCK_FILE}


async def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    owner = DataFolder(FILES, tmp_path, "127.0.0.1:1")
    owner.open()
    assert "is in use" in await refusal(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {LOCK_FILE}
    owner.close()


async def test_a_node_that_has_just_started_tells_no_stall(tmp_path: Path) -> None:
    """Its own start stood in the metric for as long as it lived, and hid what came later."""
    http, raft = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    watched: list[bool] = []
    node = Node(
        Settings(http=http, listen=raft, data=tmp_path),
        once_serving=lambda: watched.append(node.vitals.loop.is_watching),
    )
    async with node:
        assert watched == [False]
        assert node.vitals.loop.is_watching
