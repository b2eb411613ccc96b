"""Where a drill takes place: the cluster, its queue, its folder, and what it found so far."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from ..client import Client
from .crew import Crew
from .criteria import Criterion
from .jobs import TestJobs
from .report import Report

PROBE_SECONDS = 2.0
SHARE_OF_SUCCESS = 0.99


@dataclass(frozen=True)
class Options:
    """What an operator may say about a drill. The commands are programs with their arguments."""

    jobs: int = 1_000
    sample: int = 100
    minutes: float = 60.0
    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    history: bool = False
    kept_log: Path | None = None
    kill_command: str | None = None
    start_command: str | None = None


class Scene:
    """One drill's surroundings. `nodes` are all that were found to answer."""

    def __init__(
        self,
        client: Client,
        options: Options,
        queue: str,
        folder: Path,
        report: Report,
        say: Callable[[str], None],
    ) -> None:
        self.client = client
        self.options = options
        self.queue = queue
        self.folder = folder
        self.report = report
        self.say = say
        self.announcement = ""
        self.abort_reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.release = folder / "release"  # the file that the running jobs wait for
        self.crew = Crew(folder, client.transport.nodes, queue)
        self.test_jobs = TestJobs(client, queue, options.minutes)

    def abort(self, reason: str) -> None:
        """Ends the drill at the next moment; what it has is put back first."""
        if not self.abort_reason.done():
            self.abort_reason.set_result(reason)

    def judge(self, criterion: Criterion) -> None:
        self.report.criteria.append(criterion)
        self.say(f"  {'PASS' if criterion.passed else 'FAIL'}  {criterion.name}: {criterion.found}")

    async def find_nodes(self) -> None:
        """Adds the nodes that the cluster names and that answer from here: the one that was given
        may be the one that fails."""
        known = self.client.transport.nodes
        for member in await self.client.members.list():
            url = (
                f"http://{member.http}" if member.http and "://" not in member.http else member.http
            )
            if url and url not in known and await self._answers(url):
                known.append(url)

    async def _answers(self, url: str) -> bool:
        timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
        with suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
            async with self.client.transport.session().get(
                url + "/livez", timeout=timeout
            ) as answer:
                return answer.status == 200
        return False
