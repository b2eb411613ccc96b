"""A worker that never says that it lives, and reports what it has long lost.

    python -m chaos.live.latecomer --nodes URL,URL --slots 4 --name late1

Speaks the HTTP twin of the worker protocol by itself: `quorate worker` drops such results before
they leave it. It takes jobs that linger, keeps them until the cluster has given them to others, and
then says that they are done. Nothing but the number of the attempt tells these results from true
ones, for it does not say who it is either. Second attempts it runs as it should.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import suppress
from typing import Any

import aiohttp

from chaos.live.chaos_tasks import WORK_S, note

LATE_S = (4.0, 4.5, 5.0, 5.5)  # beyond the TTL; another worker's attempt takes that long
WAIT_S = 1.0
ANSWER_S = 3.0
PAUSE_S = 0.2


class Latecomer:
    def __init__(self, session: aiohttp.ClientSession, urls: list[str], arguments: Any) -> None:
        self._session = session
        self._urls = urls
        self._slots: int = arguments.slots
        self._name: str = arguments.name

    async def run(self) -> None:
        """Whenever it has been forgotten it comes again."""
        while True:
            offer = {"name": self._name, "slots": self._slots, "tasks": ["linger"]}
            _, answer = await self._insist("POST", "/v1/workers", offer)
            path, ask = f"/v1/workers/{answer['worker_id']}/poll", {"max": self._slots}
            while True:
                status, answer = await self._insist("POST", path, ask | {"wait": WAIT_S})
                if status != 200:  # forgotten
                    break
                # Not a word until all are done: asking for more would say that it lives.
                works = (self._work(job["job_id"], job["attempt"]) for job in answer["jobs"])
                await asyncio.gather(*works)

    async def _work(self, job_id: str, attempt: int) -> None:
        note("begin", job_id, attempt)
        await asyncio.sleep(LATE_S[int(job_id) % len(LATE_S)] if attempt == 1 else WORK_S)
        note("end", job_id, attempt, "completes")
        done = {"attempt": attempt, "output": f"by {attempt}"}
        await self._insist("PUT", f"/v1/jobs/{job_id}/complete", done)

    async def _insist(self, method: str, path: str, body: object) -> tuple[int, Any]:
        """The first definite answer of any node."""
        timeout = aiohttp.ClientTimeout(total=WAIT_S + ANSWER_S)
        while True:
            for url in self._urls:
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    async with self._session.request(
                        method, url + path, json=body, timeout=timeout
                    ) as response:
                        if response.status < 500:
                            return response.status, await response.json(content_type=None)
            await asyncio.sleep(PAUSE_S)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m chaos.live.latecomer")
    parser.add_argument("--nodes", required=True)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--name", default="late")
    arguments = parser.parse_args()
    async with aiohttp.ClientSession() as session:
        latecomer = Latecomer(session, arguments.nodes.split(","), arguments)
        work = asyncio.create_task(latecomer.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
        with suppress(asyncio.CancelledError):
            await work


if __name__ == "__main__":
    asyncio.run(main())
