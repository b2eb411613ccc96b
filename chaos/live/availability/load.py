"""A steady stream of jobs from many clients, and when each of them was told that it was taken.

A client asks at its own beats, the beats of all are spread evenly; while it waits for an answer
its beats are left out, so that an outage is not followed by a flood. It repeats a request under its
key, at the next node, until somebody answers.
"""

from __future__ import annotations

import asyncio
from random import Random

from chaos.live.asking import Asker, NotApplied, Unknown

CLIENTS = 25
BATCH = 5
ANSWER_S = 0.5
PAUSE_S = 0.01
RETRIES = {"max_retries": 50, "retry": {"strategy": "fixed", "base_seconds": 0.1}}


class Load:
    def __init__(
        self, asker: Asker, rate: float, batch: int = BATCH, *, is_counted: bool = False
    ) -> None:
        """`rate`: jobs a second, of all clients together. Counted: of jobs that do nothing the
        ids are not kept and no run is written down, so that tens of thousands a second can be
        told from lost ones by their number alone."""
        self._asker = asker
        self._batch = batch
        self._is_counted = is_counted
        self._beat_s = CLIENTS * batch / rate
        self._stopped = False
        self._clients: list[asyncio.Task[None]] = []
        self.accepted_s: list[float] = []  # by the monotonic clock
        self.ids: list[str] = []
        self.acknowledged = 0  # jobs
        self.is_held_back = False  # set by who sees that jobs come faster than they are run
        self.repeated = 0

    def start(self) -> None:
        begun_s = asyncio.get_running_loop().time()
        self._clients = [
            asyncio.create_task(self._client(n, begun_s + n / CLIENTS * self._beat_s))
            for n in range(CLIENTS)
        ]

    async def stop(self) -> None:
        """Every request that was sent has its answer."""
        self._stopped = True
        await asyncio.gather(*self._clients)

    def check(self) -> None:
        """Raises what a client raised."""
        for client in self._clients:
            if client.done():
                client.result()

    async def _client(self, number: int, beat_s: float) -> None:
        loop, at = asyncio.get_running_loop(), number
        rng = Random(number)
        asked = 0
        while not self._stopped:
            await asyncio.sleep(beat_s - loop.time())
            if not self.is_held_back:
                asked += 1
                at = await self._submit(rng, f"a{number}.{asked}", at)
            beat_s += self._beat_s * max(1, -(-(loop.time() - beat_s) // self._beat_s))

    async def _submit(self, rng: Random, key: str, at: int) -> int:
        """Returns the number of the node that answered."""
        jobs = self._jobs(key)
        urls, path = self._asker.urls, "/v1/jobs/batch"
        while True:
            try:
                answer = await self._asker.ask(
                    urls[at % len(urls)], "POST", path, jobs, key, ANSWER_S
                )
            except (NotApplied, Unknown):
                self.repeated += 1
                at += 1
                await asyncio.sleep(PAUSE_S * rng.uniform(0.5, 1.5))
                continue
            if answer.code:
                raise RuntimeError(f"submission {key} was refused: {answer}")
            self.accepted_s.append(asyncio.get_running_loop().time())
            ids = answer.body["ids"]
            self.acknowledged += len(ids)
            if not self._is_counted:
                self.ids += ids
            return at

    def _jobs(self, key: str) -> list[dict[str, object]]:
        if self._is_counted:
            return [{"name": "nothing", "payload": key, **RETRIES}] * self._batch
        return [{"name": "work", "payload": f"{key}/{n}", **RETRIES} for n in range(self._batch)]
