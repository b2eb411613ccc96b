"""The tasks of a scenario's workers: each run writes down when it begins, when it ends and how.

One line per event, each with a single append, so that lines of several workers never mix. Times are
of the monotonic clock, which all processes of a machine share and nobody sets.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

from quorate import Context, Scheduler

app = Scheduler()
FILE_VARIABLE = "QUORATE_CHAOS_FILE"
WORK_S = 0.005
OVERTIME_S = 2.5  # longer than the limit that clients give such jobs
LINGER_S = 1.0
LINGER_AGAIN_S = 4.0


def note(event: str, job_id: str, attempt: int, outcome: str = "") -> None:
    fields = {"event": event, "job": job_id, "attempt": attempt, "outcome": outcome}
    line = json.dumps(fields | {"worker": f"pid {os.getpid()}", "s": time.monotonic()})
    with Path(os.environ[FILE_VARIABLE]).open("a") as file:
        file.write(line + "\n")


async def _run(ctx: Context, seconds: float, fails: bool = False) -> str:
    """The output names the attempt, so that a result can be traced to the run that made it."""
    run = (ctx.job_id, ctx.attempt)
    note("begin", *run)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note("end", *run, "stopped")
        raise
    note("end", *run, "fails" if fails else "completes")
    if fails:
        raise ConnectionError(f"attempt {ctx.attempt} fails")
    return f"by {ctx.attempt}"


@app.task()
async def work(payload: str | None, ctx: Context) -> str:
    return await _run(ctx, WORK_S)


@app.task()
async def nothing(payload: str) -> None:
    """Leaves no line, for rates at which the lines would be the load."""


@app.task()
async def stumble(payload: str, ctx: Context) -> str:
    """Fails at first."""
    return await _run(ctx, WORK_S, fails=ctx.attempt == 1)


@app.task()
async def doomed(payload: str, ctx: Context) -> str:
    return await _run(ctx, WORK_S, fails=True)


@app.task()
async def overtime(payload: str, ctx: Context) -> str:
    """Takes too long at first, so that the cluster ends the attempt."""
    return await _run(ctx, OVERTIME_S if ctx.attempt == 1 else WORK_S)


@app.task()
async def linger(payload: str, ctx: Context) -> str:
    """Long enough to be cancelled, or to lose its worker; then it takes longer, so that a late
    result of the attempt before finds another one running."""
    return await _run(ctx, LINGER_S if ctx.attempt == 1 else LINGER_AGAIN_S)
