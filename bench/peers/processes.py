"""Processes of a run: each leads a group and is ended by id; their CPU time and memory.

They stay in one session, because Linux shares a busy machine's cores between sessions first: a peer
of many sessions would get more of it than one of few.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

STOP_S = 15.0
ORDER_S = 120.0  # the longest that one order may take
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PPID, _UTIME, _CSTIME = 1, 11, 14  # fields of /proc/*/stat, counted from behind the name


class Process:
    """One program with its log; ending it ends the whole group that it leads."""

    def __init__(
        self, name: str, argv: Sequence[str], folder: Path, env: Mapping[str, str], *,
        piped: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.log_path = folder / f"{name}.log"
        self._argv, self._folder, self._env, self._piped = argv, folder, env, piped
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    async def start(self) -> None:
        pipe = asyncio.subprocess.PIPE if self._piped else None
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv, stdin=pipe or asyncio.subprocess.DEVNULL, stdout=pipe or log,
                stderr=log, cwd=self._folder, env=self._env, process_group=0,
            )  # fmt: skip

    def check_running(self) -> None:
        if self._process is None or self._process.returncode is not None:
            raise RuntimeError(f"{self.name} ended: {self.log_text()[-3000:]}")

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """A signal to the program, then SIGKILL to whatever of its group is still there."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


class Driver(Process):
    """The peer's client: takes one order at a time and answers it."""

    async def begin(self) -> None:
        await self.start()
        await self._answer()

    async def order(self, do: str, **fields: int) -> dict[str, int]:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> dict[str, int]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), ORDER_S)
        if not line:
            await self._process.wait()
            self.check_running()
        answer: dict[str, Any] = json.loads(line)
        return answer


def family(roots: Iterable[int]) -> list[int]:
    """The processes of `roots` that live, and all that descend from them."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(path.name))
        if fields:
            children.setdefault(int(fields[_PPID]), []).append(int(path.name))
    found, waiting = [], list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of the family, with that of children which ended and were waited for."""
    ticks = 0
    for pid in family(roots):
        ticks += sum(int(field) for field in _stat(pid)[_UTIME : _CSTIME + 1])
    return ticks / TICKS_PER_S


def memory_mib(roots: Iterable[int]) -> float:
    """Proportional set size of the family: pages shared by several count once."""
    kib = 0
    for pid in family(roots):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kib += int(line.split()[1])
    return kib / 1024


def _stat(pid: int) -> list[str]:
    """The fields behind the name in brackets; none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
