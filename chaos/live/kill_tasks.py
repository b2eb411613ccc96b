"""The task of the kill cycles' workers: writes down when each attempt begins and ends.

One line per event, each with a single append, so that lines of several workers never mix.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from quorate import Context, Scheduler

app = Scheduler()
FILE_VARIABLE = "QUORATE_KILLS_FILE"


def record(event: str, ctx: Context) -> None:
    with Path(os.environ[FILE_VARIABLE]).open("a") as file:
        file.write(f"{event} {ctx.job_id} {ctx.attempt} {os.getpid()}\n")


@app.task(max_retries=20)
async def work(payload: str, ctx: Context) -> str:
    """The output names the attempt, so that a result can be traced to the run that made it."""
    record("begin", ctx)
    await asyncio.sleep(0.005)
    record("end", ctx)
    return f"{payload} by {ctx.attempt}"


@app.task(max_retries=20)
async def stumble(payload: str, ctx: Context) -> str:
    """Fails at first."""
    record("begin", ctx)
    await asyncio.sleep(0.005)
    if ctx.attempt == 1:
        raise ConnectionError("the first attempt always fails")
    record("end", ctx)
    return f"{payload} by {ctx.attempt}"
