"""A drill's own workers: processes on this machine that serve its queue and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .step import DrillError
from .tasks import JOURNAL_VARIABLE

SLOTS = 16
REGISTER_SECONDS = 60.0
LOOK_SECONDS = 0.05
STOP_SECONDS = 10.0


class Mark(NamedTuple):
    """A line of the crew's journal: a job began or ended in a process, at a monotonic time."""

    event: str
    at: float
    pid: int
    job_id: str
    attempt: int


def environment(**more: str) -> Mapping[str, str]:
    """Ours, without what was set for this command or for a node of this machine."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("QUORATE_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


class Crew:
    """Workers of one queue. Files in `folder`."""

    def __init__(self, folder: Path, nodes: Sequence[str], queue: str) -> None:
        self._journal = folder / "journal"
        self._folder = folder
        self._nodes = nodes
        self._queue = queue
        self.workers: list[Process] = []

    async def hire(self, count: int) -> None:
        """Starts workers and waits until they serve. DrillError if one does not."""
        began = [await self._start(len(self.workers) + i + 1) for i in range(count)]
        self.workers += [process for process, _ in began]
        await asyncio.gather(*(self._until_serving(*each) for each in began))

    async def _start(self, number: int) -> tuple[Process, Path]:
        name = f"{self._queue}-{number}"
        log = self._folder / f"{name}.log"
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "quorate", "worker", "quorate.drill.tasks:app"),
                *("--nodes", ",".join(self._nodes), "--queues", self._queue, "--name", name),
                *("--slots", str(SLOTS), "--grace-seconds", "1"),
                stdin=DEVNULL,
                stdout=out,
                stderr=out,
                env=environment(**{JOURNAL_VARIABLE: str(self._journal)}),
                start_new_session=True,  # a terminal's Ctrl-C is for the drill, which ends them
            )
        return process, log

    async def _until_serving(self, process: Process, log: Path) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + REGISTER_SECONDS
        while " serves http" not in (text := log.read_text(errors="replace")):
            if process.returncode is not None or loop.time() > give_up_at:
                last = (text.strip().splitlines() or ["it said nothing"])[-1]
                raise DrillError(f"a worker of the drill did not start: {last}")
            await asyncio.sleep(LOOK_SECONDS)

    def marks(self) -> list[Mark]:
        """What the workers have done, in the order in which they wrote it."""
        if not self._journal.exists():
            return []
        rows = (line.split() for line in self._journal.read_text().splitlines())
        return [Mark(r[0], float(r[1]), int(r[2]), r[3], int(r[4])) for r in rows]

    def running_on(self, process: Process) -> set[str]:
        """The jobs that a worker has begun and not ended."""
        mine = [mark for mark in self.marks() if mark.pid == process.pid]
        ended = {mark.job_id for mark in mine if mark.event == "end"}
        return {mark.job_id for mark in mine} - ended

    async def kill(self, process: Process) -> None:
        """kill -9."""
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def stop(self) -> None:
        """Ends all of them, by force those that do not go."""
        alive = [process for process in self.workers if process.returncode is None]
        for process in alive:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in alive:
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                await self.kill(process)
