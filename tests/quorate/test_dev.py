"""`quorate dev` for real: nodes and workers come up, work, and go together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from quorate import Client
from quorate.testing import free_port

ROOT = Path(__file__).parents[2]


def free_range(count: int) -> int:
    """The first of some neighbouring ports that nobody uses at the moment."""
    while True:
        base = random.randrange(20_000, 30_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(base, base + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return base


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.e2e
async def test_dev_goes_on_when_one_node_is_killed_and_ends_with_the_last(tmp_path: Path) -> None:
    http, raft = free_range(3), free_range(3)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "quorate", "dev", "--nodes", "3", "--workers", "0"),
        *("--http-base", str(http), "--raft-base", str(raft), "--data", str(tmp_path)),
        stdout=PIPE,
        stderr=STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None

    async def said(text: str) -> None:
        while text not in (line := (await process.stdout.readline()).decode()):
            assert line, f"ended before it said {text!r}"

    async with asyncio.timeout(100):
        await said("3 nodes and 0 workers run")
        nodes = children_of(process.pid)
        os.kill(nodes[0], signal.SIGKILL)
        await said("was killed; the others go on")
        urls = [f"http://127.0.0.1:{http + index}" for index in range(3)]
        async with Client(urls, retry_seconds=60) as client:
            assert (await client.submit("simulate")).id
        for pid in nodes[1:]:
            os.kill(pid, signal.SIGKILL)
        await process.communicate()
    assert process.returncode == 1


@pytest.mark.e2e
async def test_dev_starts_works_and_ends_all_its_children(tmp_path: Path) -> None:
    http, raft = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "quorate", "dev", "--nodes", "1", "--workers", "1"),
        *("--http-base", str(http), "--raft-base", str(raft), "--data", str(tmp_path)),
        stdout=PIPE,
        stderr=STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    seen = ""
    async with asyncio.timeout(100):
        while "1 nodes and 1 workers run" not in seen:
            line = (await process.stdout.readline()).decode()
            assert line, seen
            seen += line
        children = children_of(process.pid)
        assert len(children) == 2
        async with Client(f"http://127.0.0.1:{http}") as client:
            view = await (await client.submit("simulate")).wait(60)
        assert view.status == "completed"
        process.send_signal(signal.SIGINT)
        seen += (await process.communicate())[0].decode()
    assert process.returncode == 0, seen
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
