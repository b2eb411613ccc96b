"""What a peer stores its jobs in: Redis, PostgreSQL, or the nodes of Quorate.

Each is started for one peer in an empty folder and ended after it. All are as durable as they can
be on one disk: what was acknowledged has been through fsync.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bench.peers.processes import Process
from chaos.live.processes import LocalCluster, free_ports

START_S = 30.0
POSTGRES_FOLDERS = "/usr/lib/postgresql/*/bin"


class Server(Protocol):
    """One started server."""

    url: str

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def pids(self) -> list[int]: ...


class Redis:
    """One Redis that answers a write after the append-only file went through fsync."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"redis://127.0.0.1:{port}/0"
        self._port = port
        argv = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
        argv += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self._process = Process("redis", argv, folder, os.environ)

    async def start(self) -> None:
        await self._process.start()
        await _listening(self._process, self._port)

    async def stop(self) -> None:
        await self._process.stop()

    def pids(self) -> list[int]:
        return [self._process.pid]


class Postgres:
    """One PostgreSQL cluster as initdb makes it; fsync and synchronous_commit are on by default."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"postgresql://peers@127.0.0.1:{port}/postgres"
        self._folder, self._port = folder, port
        self._as_user = as_unprivileged()
        argv = [*self._as_user, str(_found("postgres")), "-D", str(folder / "data")]
        argv += ["-p", str(port), "-h", "127.0.0.1", "-k", ""]
        self._process = Process("postgres", argv, folder, os.environ)

    async def start(self) -> None:
        if self._as_user:
            shutil.chown(self._folder, _unprivileged_user())
        argv = [*self._as_user, str(_found("initdb")), "-D", str(self._folder / "data")]
        argv += ["-U", "peers", "-A", "trust", "-E", "UTF8", "--locale=C"]
        made = await asyncio.create_subprocess_exec(
            *argv, stdout=subprocess.DEVNULL, cwd=self._folder
        )
        if await made.wait() != 0:
            raise RuntimeError("initdb failed")
        await self._process.start()
        await _listening(self._process, self._port)

    async def stop(self) -> None:
        await self._process.stop(signal.SIGINT)  # a fast shutdown: it does not wait for clients

    def pids(self) -> list[int]:
        return [self._process.pid]


class Quorate:
    """Nodes as `make bench` starts them."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self._cluster = LocalCluster(folder, nodes, flags=("--log-level", "warning"))
        self.url = self._cluster.urls

    async def start(self) -> None:
        await self._cluster.__aenter__()
        await self._cluster.leader()

    async def stop(self) -> None:
        await self._cluster.stop()

    def pids(self) -> list[int]:
        return [node.pid for node in self._cluster.nodes]


def make(kind: str, folder: Path) -> Server:
    if kind == "redis":
        return Redis(folder)
    if kind == "postgres":
        return Postgres(folder)
    return Quorate(folder, 1 if kind == "quorate-1" else 3)


def version(kind: str) -> str:
    """What the program of the server calls itself."""
    program = {"redis": "redis-server", "postgres": str(postgres_program("postgres"))}[kind]
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def postgres_program(name: str) -> Path | None:
    """On the PATH or where Debian keeps it; the newest when there are several."""
    on_path = shutil.which(name)
    packaged = sorted(Path("/").glob(f"{POSTGRES_FOLDERS[1:]}/{name}"))
    return Path(on_path).resolve() if on_path else next(reversed(packaged), None)


def _found(name: str) -> Path:
    program = postgres_program(name)
    assert program is not None, f"{name} is missing; see --check"
    return program


def as_unprivileged() -> Sequence[str]:
    """The words before a command that must not run as root; none when we are not root."""
    if os.geteuid() != 0:
        return ()
    user = _unprivileged_user()
    return ("setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--")


def _unprivileged_user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


async def _listening(process: Process, port: int) -> None:
    """Wait until somebody accepts connections there."""
    async with asyncio.timeout(START_S):
        while True:
            process.check_running()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
