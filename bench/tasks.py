"""Tasks of the benchmark's workers."""

from __future__ import annotations

import time

from quorate import Scheduler

app = Scheduler()


@app.task()
async def noop(payload: str) -> None:
    """The cheapest job there is."""


@app.task()
async def stamp(payload: str) -> float:
    """When it really started, by the machine's clock."""
    return time.time()
