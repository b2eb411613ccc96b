"""What keeps a node from starting: each refusal is one clear line and leaves the disk as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from consensus_helpers import TestNode, free_addresses, running, until

from cluster.consensus import ConsensusConfig, ConsensusStartError
from cluster.consensus.pin import SHA256, check_sources

ENTRIES = [b"entry %d" % number for number in range(40)]


async def refusal(config: ConsensusConfig) -> str:
    node = TestNode(config)
    with pytest.raises(ConsensusStartError) as caught:
        await node.consensus.start()
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_port_in_use_is_named_and_nothing_is_created(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        config = cluster.nodes[0].config
        message = await refusal(replace(config, data_dir=tmp_path / "fresh"))
        assert config.listen in message
        assert "choose another port" in message
        assert not (tmp_path / "fresh").exists()


async def test_a_folder_in_use_or_of_somebody_else_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        await cluster.commit(b"one")
        config = cluster.nodes[0].config
        other = free_addresses(1)[0]
        assert "in use" in await refusal(replace(config, listen=other))
        await cluster.nodes[0].consensus.stop()
        before = sorted((p, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file())
        assert "belongs to node" in await refusal(replace(config, node_id=other, listen=other))
        after = sorted((p, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file())
        assert before == after
        node = await cluster.restart(0)
        await until(lambda: node.machine.entries == [b"one"])


async def test_a_file_in_the_way_and_a_bad_address_are_refused(tmp_path: Path) -> None:
    address = free_addresses(1)[0]
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    config = ConsensusConfig(address, address, (), blocked)
    assert str(blocked) in await refusal(config)
    assert "host:port" in await refusal(replace(config, listen="nowhere"))
    assert "heartbeat" in await refusal(replace(config, heartbeat_ms=200, data_dir=tmp_path / "d"))


async def test_a_corrupt_journal_refuses_to_start(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        await cluster.commit(*ENTRIES)
        config = cluster.nodes[0].config
        await cluster.nodes[0].consensus.stop()
    path = next(tmp_path.rglob("*.seg"))
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    message = await refusal(config)
    assert str(path) in message
    assert "restore" in message


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
async def test_a_name_that_cannot_be_resolved_is_refused(tmp_path: Path, host: str) -> None:
    """The task that dials this member would die of it, without a word."""
    config = ConsensusConfig("127.0.0.1:1", "127.0.0.1:1", (f"{host}:2",), tmp_path / "d")
    assert "is not a host name" in await refusal(config)


async def test_a_missing_identity_beside_data_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        await cluster.commit(b"one")
        config = cluster.nodes[0].config
        await cluster.nodes[0].consensus.stop()
    (config.data_dir / "identity.json").unlink()
    assert "identity.json is missing" in await refusal(config)


def test_another_library_release_is_refused_at_import(tmp_path: Path) -> None:
    (tmp_path / "syncobj.py").write_text("# not the pinned release")
    with pytest.raises(ImportError, match=r"install exactly pysyncobj==0\.3\.17"):
        check_sources(tmp_path, {"syncobj.py": SHA256["syncobj.py"]})
