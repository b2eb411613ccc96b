"""The child processes of `quorate dev`: started in order, watched, and ended by their own pids."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

from .options import variable

READY_SECONDS = 30.0
STOP_SECONDS = 15.0
HOST = "127.0.0.1"
FLAGS = ("--workers", "--slots", "--queues", "--data", "--http-base", "--raft-base")


def _child_environment() -> dict[str, str]:
    """Ours, without what was meant for this command: every child gets its own flags."""
    mine = {variable(flag) for flag in FLAGS} | {"QUORATE_DEV_NODES", "QUORATE_NODES"}
    kept = {name: value for name, value in os.environ.items() if name not in mine}
    return {**kept, "PYTHONUNBUFFERED": "1"}


class DevCluster:
    """The child processes."""

    def __init__(
        self, args: argparse.Namespace, folder: Path, raft: list[int], http: list[int]
    ) -> None:
        self._args = args
        self._folder = folder
        self._raft = [f"{HOST}:{port}" for port in raft]
        self._http = [f"{HOST}:{port}" for port in http]
        self._urls = [f"http://{address}" for address in self._http]
        self._nodes: dict[str, Process] = {}
        self._workers: dict[str, Process] = {}
        self._pumps: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self._died: str | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        try:
            await self._start()
            await self._stop.wait()
        finally:
            await self._end(self._workers)
            await self._end(self._nodes)
            await asyncio.gather(*self._pumps, return_exceptions=True)
        if self._died is not None:
            print(f"quorate: {self._died}", file=sys.stderr)
            return 1
        return 0

    async def _start(self) -> None:
        peers = ",".join(self._raft)
        for index, (raft, http) in enumerate(zip(self._raft, self._http, strict=True), 1):
            data = self._folder / f"n{index}"
            data.mkdir(parents=True, exist_ok=True)
            where = ["--listen", raft, "--peers", peers, "--http", http, "--data", str(data)]
            await self._spawn(self._nodes, f"n{index}", ["-m", "cluster.main", *where])
        if not await self._ready():
            return
        for index in range(1, self._args.workers + 1):
            command = ["-m", "quorate", "worker", "--nodes", ",".join(self._urls)]
            command += ["--slots", str(self._args.slots), "--name", f"dev-{index}"]
            if self._args.queues:
                command += ["--queues", self._args.queues]
            if self._args.app:
                command.append(self._args.app)
            await self._spawn(self._workers, f"w{index}", command)
        print(
            f"{len(self._urls)} nodes and {self._args.workers} workers run; data in {self._folder}"
        )
        for url in self._urls:
            print(f"  {url}")
        print(f"try: quorate submit simulate --wait --nodes {self._urls[0]}    end: Ctrl-C")
        sys.stdout.flush()

    async def _spawn(self, group: dict[str, Process], name: str, command: list[str]) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env=_child_environment(),
            # Its own session: the terminal's Ctrl-C reaches only this process, which then ends
            # workers before nodes.
            start_new_session=True,
        )
        group[name] = process
        loop = asyncio.get_running_loop()
        self._pumps.append(loop.create_task(self._pump(name, process)))

    async def _pump(self, name: str, process: Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            print(f"{name} | {line.decode(errors='replace').rstrip()}", flush=True)
        code = await process.wait()
        if self._stop.is_set():
            return
        if code == 0 and name in self._workers:
            print(f"{name} has left", flush=True)  # drained
        elif code == -signal.SIGKILL and self._others_live():
            print(f"{name} (pid {process.pid}) was killed; the others go on", flush=True)
        else:
            self._died = f"{name} (pid {process.pid}) ended by itself with exit code {code}"
            self._stop.set()

    def _others_live(self) -> bool:
        """Trying out a failure is what a local cluster is for; it ends with its last node."""
        return any(node.returncode is None for node in self._nodes.values())

    async def _ready(self) -> bool:
        """True once every node says it is ready; False when told to stop meanwhile."""
        import aiohttp

        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + READY_SECONDS
        timeout = aiohttp.ClientTimeout(total=1.0)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for url in self._urls:
                while not self._stop.is_set():
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                        async with session.get(f"{url}/readyz") as answer:
                            if answer.status == 200:
                                break
                    if loop.time() > give_up_at:
                        self._died = f"{url} was not ready within {READY_SECONDS:g} s"
                        self._stop.set()
                    await asyncio.sleep(0.05)
        return not self._stop.is_set()

    async def _end(self, group: dict[str, Process]) -> None:
        """SIGTERM for all, SIGKILL for those that need longer than STOP_SECONDS."""
        self._stop.set()
        alive = [process for process in group.values() if process.returncode is None]
        for process in alive:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in alive:
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                print(f"quorate: pid {process.pid} did not stop; killed", file=sys.stderr)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
