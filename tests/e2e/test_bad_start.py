"""A node that must not start says why in one line, names the fix, and changes nothing."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from chaos.live.processes import ROOT, START_S, LocalCluster, free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]


async def run_node(*flags: str) -> tuple[int, str]:
    """Exit code and standard error of a node that is expected to end by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "node.py"), *flags,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode is not None
    return process.returncode, errors.decode()


def addresses() -> list[str]:
    raft, http = free_ports(2)
    return ["--listen", f"127.0.0.1:{raft}", "--http", f"127.0.0.1:{http}"]


async def test_a_bad_settings_file_names_the_key(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text("hearbeat_ms = 50\n")
    code, errors = await run_node("--config", str(config))
    assert code == 2
    assert "hearbeat_ms" in errors
    assert "heartbeat_ms" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("flag", ["--http", "--listen"])
async def test_a_port_in_use_is_named(tmp_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = addresses()
        flags[flags.index(flag) + 1] = f"127.0.0.1:{port}"
        code, errors = await run_node(*flags, "--data", str(tmp_path / "d"))
    assert code == 1
    assert str(port) in errors
    assert not (tmp_path / "d").exists()
    assert "Traceback" not in errors


async def test_a_data_folder_of_another_node_is_refused(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        data = cluster.nodes[0].data
    before = sorted(path.name for path in data.rglob("*"))
    code, errors = await run_node(*addresses(), "--data", str(data))
    assert code == 1
    assert str(data) in errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in data.rglob("*")) == before


async def test_a_data_folder_in_use_is_refused(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        code, errors = await run_node(*addresses(), "--data", str(cluster.nodes[0].data))
    assert code == 1
    assert str(cluster.nodes[0].data) in errors
    assert "Traceback" not in errors


async def test_a_corrupted_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        for number in range(50):
            await cluster.request("POST", "/v1/jobs", json={"name": "simulate", "payload": number})
        node = cluster.nodes[0]
        await node.kill()
        segment = max(node.data.glob("journal/*.seg"))
        content = bytearray(segment.read_bytes())
        written = len(content.rstrip(b"\0"))  # behind it is space that was taken in advance
        content[written // 3] ^= 0xFF
        segment.write_bytes(content)
        await node.start()
        assert await node.wait() == 1
        assert str(segment) in node.log_text()
        assert "Traceback" not in node.log_text()
        assert segment.read_bytes() == bytes(content)


async def test_a_node_that_waits_to_be_let_in_can_be_stopped(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "node.py"), *addresses(),
        "--data", str(tmp_path / "d"), "--join", "--peers", nobody,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    async with asyncio.timeout(START_S):
        while nobody.encode() not in (line := await process.stderr.readline()):
            assert line, "it ended by itself"
        process.terminate()
        assert await process.wait() == 0
    assert not (tmp_path / "d" / "identity.json").exists()
