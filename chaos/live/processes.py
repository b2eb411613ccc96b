"""A cluster of real processes on loopback: nodes and workers that can be killed and restarted.

Used by the demo, the end-to-end tests and the benchmarks. Every process is ended by the id that was
started here, nothing broader.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0  # two of them on a quiet machine
STOP_S = 30.0
NODE = ROOT / "node.py"
WORKER = (sys.executable, "-m", "quorate", "worker")


PORTS_FROM = 10_000
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_taken: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses at the moment, and none that was given away before. The system gives
    none of these to an outgoing connection: a node that is down would find its port taken, or its
    peers would be connected with themselves."""
    below = int(EPHEMERAL.read_text().split()[0]) if EPHEMERAL.exists() else 32_768
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(PORTS_FROM, below)
        with socket.socket() as probe, contextlib.suppress(OSError):
            if port not in _taken:
                probe.bind(("127.0.0.1", port))
                _taken.add(port)
                found.append(port)
    return found


class Child:
    """One process with its log file."""

    def __init__(
        self, name: str, argv: Sequence[str], folder: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log_path = folder / f"{name}.log"
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.argv, stdout=log, stderr=log, env=self._env, cwd=ROOT
            )

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await self.wait()

    def signal(self, number: int) -> None:
        if self.is_running:
            assert self._process is not None
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def wait(self) -> int:
        """The exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM; SIGKILL when it does not end in time. Returns the exit code."""
        self.signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.wait(), STOP_S)
        except TimeoutError:
            await self.kill()
            return await self.wait()

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


@dataclass(frozen=True)
class Place:
    """Where a node runs: two addresses, what must stand before its command, and the Raft address
    that the others use, where that is another; the same for HTTP."""

    raft: str
    http: str
    prefix: tuple[str, ...] = ()
    advertise: str = ""
    advertise_http: str = ""


def loopback_places(nodes: int, http_ports: Sequence[int] = ()) -> list[Place]:
    ports = free_ports(2 * nodes)
    https = http_ports or ports[nodes:]
    pairs = zip(ports[:nodes], https, strict=True)
    return [Place(f"127.0.0.1:{raft}", f"127.0.0.1:{http}") for raft, http in pairs]


class NodeChild(Child):
    """One node; keeps its addresses and data folder over restarts."""

    def __init__(
        self, number: int, place: Place, peers: Sequence[str], folder: Path,
        flags: Sequence[str], env: Mapping[str, str], program: Path = NODE,
        logs: Path | None = None,
    ) -> None:  # fmt: skip
        raft, http = place.raft, place.http
        self.raft = raft
        self.http = http
        self.url = f"http://{http}"
        self.node_id = place.advertise or raft
        self.data = folder / f"n{number}"
        argv = [*place.prefix, sys.executable, str(program)]
        argv += ["--listen", raft, "--http", http]
        argv += ["--data", str(self.data), "--name", f"n{number}", *flags]
        if place.advertise:
            argv += ["--advertise", place.advertise]
        if place.advertise_http:
            argv += ["--advertise-http", place.advertise_http]
        if len(peers) > 1:
            argv += ["--peers", ",".join(peers)]
        super().__init__(f"n{number}", argv, logs or folder, env)


class LocalCluster:
    """Nodes and workers under one folder. Use as an async context manager, whose end is kill -9:
    whoever wants to see how processes end by themselves stops them before."""

    def __init__(
        self,
        folder: Path,
        nodes: int = 3,
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        http_ports: Sequence[int] = (),
        places: Sequence[Place] = (),
        program: Path = NODE,
        logs: Path | None = None,
    ) -> None:
        """`places` for nodes that are not on loopback; `program` for nodes that are embedded;
        `logs` for a folder of their own, where the disk under the data may be full."""
        places = places or loopback_places(nodes, http_ports)
        rafts = [place.advertise or place.raft for place in places]
        self.folder = folder
        self._logs = logs or folder
        self._env = dict(env or {})
        self.nodes = [
            NodeChild(i + 1, place, rafts, folder, flags, self._env, program, logs)
            for i, place in enumerate(places)
        ]
        self.workers: list[Child] = []
        self._session: aiohttp.ClientSession | None = None

    @property
    def urls(self) -> str:
        """All nodes' addresses, as clients and workers take them."""
        return ",".join(node.url for node in self.nodes)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        try:
            await self.start_nodes()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.kill()

    async def start_nodes(self) -> None:
        await asyncio.gather(*(node.start() for node in self.nodes if not node.is_running))
        await self.ready(START_S)

    async def stop(self) -> None:
        """End everything: workers first, so that they can say goodbye."""
        await asyncio.gather(*(w.stop() for w in self.workers if w.is_running))
        await asyncio.gather(*(n.stop() for n in self.nodes if n.is_running))
        await self._hang_up()

    async def kill(self) -> None:
        """kill -9 everything at once."""
        children = [child for child in (*self.workers, *self.nodes) if child.is_running]
        for child in children:
            child.signal(signal.SIGKILL)
        await asyncio.gather(*(child.wait() for child in children))
        await self._hang_up()

    async def _hang_up(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def kill_all_nodes(self) -> None:
        """kill -9 all nodes at once."""
        for node in self.nodes:
            node.signal(signal.SIGKILL)
        await asyncio.gather(*(node.wait() for node in self.nodes if node.is_running))

    async def worker(
        self,
        name: str,
        app: str | None = None,
        slots: int = 8,
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = WORKER,
    ) -> Child:
        """Start a worker and wait until the cluster knows it."""
        argv = [*program, *([app] if app else [])]
        argv += ["--nodes", self.urls, "--slots", str(slots), "--name", name, *flags]
        child = Child(name, argv, self._logs, {**self._env, **(env or {})})
        self.workers.append(child)
        await child.start()

        async def known() -> bool:
            if not child.is_running:
                raise RuntimeError(f"worker {name} ended: {child.log_text()[-2000:]}")
            answer = await self.get("/v1/workers")
            return any(item["name"] == name for item in answer["items"])

        await self.until(known, f"worker {name} to register", START_S)
        return child

    # -- talking to it ---------------------------------------------------------------------------

    async def request(
        self, method: str, path: str, node: NodeChild | None = None, **options: Any
    ) -> tuple[int, Any]:
        """Status and decoded JSON from one node (the first that runs, when none is named)."""
        assert self._session is not None
        target = node or next(n for n in self.nodes if n.is_running)
        timeout = aiohttp.ClientTimeout(total=options.pop("timeout_s", 30.0))
        async with self._session.request(
            method, target.url + path, timeout=timeout, **options
        ) as response:
            body = await response.read()
            is_json = "json" in response.content_type
            return response.status, await response.json() if is_json else body.decode()

    async def get(self, path: str, node: NodeChild | None = None) -> Any:
        """The decoded answer, retried over all running nodes until one says 200."""
        deadline = time.monotonic() + 20.0
        problem: object = None
        while time.monotonic() < deadline:
            for target in [node] if node else [n for n in self.nodes if n.is_running]:
                try:
                    status, answer = await self.request("GET", path, target, timeout_s=5.0)
                except (aiohttp.ClientError, TimeoutError) as error:
                    problem = repr(error)
                    continue
                if status == 200:
                    return answer
                problem = (status, answer)
            await asyncio.sleep(0.05)
        raise RuntimeError(f"GET {path} did not answer 200: {problem}")

    async def ready(self, timeout_s: float = START_S) -> None:
        """Wait until every running node is ready."""
        for node in self.nodes:
            if node.is_running:
                await self.until(lambda node=node: self._is_ready(node), f"{node.name}", timeout_s)

    async def _is_ready(self, node: NodeChild) -> bool:
        if not node.is_running:
            raise RuntimeError(f"{node.name} ended: {node.log_text()[-3000:]}")
        try:
            status, _ = await self.request("GET", "/readyz", node, timeout_s=2.0)
        except (aiohttp.ClientError, TimeoutError):
            return False
        return status == 200

    async def leader(self, timeout_s: float = START_S, but: NodeChild | None = None) -> NodeChild:
        """The node that says it leads, asked of all that run; `but` is not asked."""
        found: list[NodeChild] = []

        async def known() -> bool:
            for node in self.nodes:
                if not node.is_running or node is but:
                    continue
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    _, status = await self.request("GET", "/v1/cluster", node, timeout_s=2.0)
                    if status["is_leader"]:
                        found.append(node)
                        return True
            return False

        await self.until(known, "a leader", timeout_s)
        return found[0]

    async def until(
        self, condition: Callable[[], Any], what: str, timeout_s: float = START_S
    ) -> None:
        """Poll an async condition of a real process. Raises TimeoutError naming `what`."""
        deadline = time.monotonic() + timeout_s
        while not await condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout_s:g} s in vain for {what}")
            await asyncio.sleep(0.02)
