"""A cluster on this machine that begins with a backup: the other region, for as long as a drill
lasts. Free ports of loopback, data in the drill's folder, nothing of this process's settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from .crew import environment
from .step import DrillError

HOST = "127.0.0.1"
READY_SECONDS = 600.0  # a large state takes its time to load
STOP_SECONDS = 15.0
LOOK_SECONDS = 0.05
SETTLED_SECONDS = 60.0  # a file that was not written to for so long will not grow
FULL = re.compile(r"full-\d{20}-\d{14}\.tar")


def newest_backup(folder: Path) -> Path:
    """Of a folder that a cluster keeps its backups and its log in. DrillError if there is none."""
    fulls = sorted(path for path in folder.iterdir() if FULL.fullmatch(path.name))
    if not fulls:
        raise DrillError(f"{folder} has no full-*.tar: name <backup_folder>/<cluster id>")
    return fulls[-1]


def freeze(folder: Path, into: Path) -> None:
    """What `folder` has at this moment: a cluster that is not really lost goes on keeping its log,
    and what it keeps from now on must not count."""
    into.mkdir()
    for path in folder.iterdir():
        if not path.is_file() or path.suffix not in (".tar", ".kept"):
            continue
        if time.time() - path.stat().st_mtime > SETTLED_SECONDS:
            with contextlib.suppress(OSError):  # another file system
                os.link(path, into / path.name)
                continue
        shutil.copy2(path, into / path.name)


class Region:
    """Nodes that are restored, started and ended together."""

    def __init__(self, folder: Path, nodes: int) -> None:
        ports = _free_ports(2 * nodes)
        rafts = [f"{HOST}:{port}" for port in ports[:nodes]]
        https = [f"{HOST}:{port}" for port in ports[nodes:]]
        self.urls = [f"http://{address}" for address in https]
        self._folder = folder
        self._flags: list[list[str]] = []
        for i, (raft, http) in enumerate(zip(rafts, https, strict=True), 1):
            flags = ["--listen", raft, "--http", http, "--data", str(folder / f"node-{i}")]
            peers = ["--peers", ",".join(rafts)] if nodes > 1 else []
            self._flags.append([*flags, *peers, "--log-level", "warning"])
        self._nodes: list[Process] = []

    async def restore(self, backup: Path, kept_log: Path | None) -> dict[str, Any]:
        """Every node's folder from the backup; what the last one told."""
        more = [] if kept_log is None else ["--log", str(kept_log)]
        told: dict[str, Any] = {}
        for flags in self._flags:  # one by one: a large state is loaded into memory each time
            told = await offline("restore", str(backup), *more, "--", *flags)
        return told

    async def start(self) -> None:
        """Returns when every node is ready. DrillError if one is not."""
        for i, flags in enumerate(self._flags, 1):
            with (self._folder / f"node-{i}.log").open("ab") as out:
                self._nodes.append(
                    await asyncio.create_subprocess_exec(
                        *(sys.executable, "-m", "cluster.main", *flags),
                        stdin=DEVNULL,
                        stdout=out,
                        stderr=out,
                        env=environment(),
                        start_new_session=True,
                    )
                )
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
            await asyncio.wait_for(self._until_ready(session), READY_SECONDS)

    async def _until_ready(self, session: aiohttp.ClientSession) -> None:
        for number, (url, node) in enumerate(zip(self.urls, self._nodes, strict=True), 1):
            while not await _is_ready(session, url):
                if node.returncode is not None:
                    text = (self._folder / f"node-{number}.log").read_text(errors="replace")
                    last = (text.strip().splitlines() or ["it said nothing"])[-1]
                    raise DrillError(f"a restored node ended with {node.returncode}: {last}")
                await asyncio.sleep(LOOK_SECONDS)

    async def stop(self) -> None:
        alive = [node for node in self._nodes if node.returncode is None]
        for node in alive:
            with contextlib.suppress(ProcessLookupError):
                node.send_signal(signal.SIGTERM)
        for node in alive:
            try:
                await asyncio.wait_for(node.wait(), STOP_SECONDS)
            except TimeoutError:
                node.kill()
                await node.wait()


async def offline(*arguments: str) -> dict[str, Any]:
    """`python -m cluster.backup`: a process of its own, for the client knows nothing of nodes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cluster.backup", *arguments),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=environment(),
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise DrillError(err.decode(errors="replace").strip() or f"{arguments[0]} failed")
    told: dict[str, Any] = msgspec.json.decode(out)
    return told


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with session.get(url + "/readyz") as answer:
            return answer.status == 200
    return False


def _free_ports(count: int) -> list[int]:
    """Free at the moment; held together so that all differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
