"""The worker SDK's part of a job: from decoded assignments to encoded results, for a no-op."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from bench.micro import replay
from bench.micro.timing import Step, Work
from bench.tasks import app
from quorate.executors import Tools, executors_for
from quorate.worker.frames import Like
from quorate.worker.outbox import Outbox
from quorate.worker.runner import Runner


def steps(jobs: int, folder: Path) -> list[Step]:
    return [
        Step("run a no-op, 1,000 at a time", jobs, _running(jobs, replay.BATCH)),
        Step("run a no-op, one at a time", jobs // 10, _running(jobs // 10, 1)),
    ]


def _running(jobs: int, at_once: int) -> Callable[[], Work]:
    async def run() -> None:
        tools = Tools(at_once)
        outbox = Outbox()
        outbox.columns = True
        runner = Runner(executors_for(app.tasks.values(), tools), outbox, at_once)
        said = 0
        for first in range(1, jobs + 1, at_once):
            ids = list(range(first, first + at_once))
            payloads: list[bytes | None] = [replay.PAYLOAD] * at_once
            runner.start_like(Like("noop", "default", 3_600_000, 3, ids, [1] * at_once, payloads))
            await runner.wait_idle()
            for _ in outbox.frames():  # one frame with all results
                said += 1
                outbox.ack(said)
        assert not outbox.held
        await tools.close()

    return lambda: lambda: asyncio.run(run())
