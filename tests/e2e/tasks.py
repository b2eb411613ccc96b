"""Tasks of the end-to-end tests; executions are written to a file, one line each."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from quorate import Context, Scheduler

app = Scheduler()


def record(line: str) -> None:
    """Appends with one write, so that workers do not mix their lines."""
    folder = os.environ.get("E2E_FOLDER")
    if folder:
        with Path(folder, "executions").open("a") as file:
            file.write(line + "\n")


@app.task()
async def quick(payload: str, ctx: Context) -> str:
    record(f"{ctx.job_id} {ctx.attempt}")
    return payload


@app.task(max_retries=3)
async def slow_at_first(ctx: Context) -> None:
    """Outlasts any test, unless it is tried again."""
    record(f"{ctx.job_id} {ctx.attempt}")
    if ctx.attempt == 1:
        await asyncio.sleep(600)


@app.task(max_retries=3)
async def gated(gate: str, ctx: Context) -> int:
    """Runs until the test makes this file."""
    record(f"{ctx.job_id} {ctx.attempt}")
    while not Path(gate).exists():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return ctx.attempt


@app.task(max_retries=3)
async def slow(seconds: float, ctx: Context) -> int:
    record(f"{ctx.job_id} {ctx.attempt}")
    await asyncio.sleep(seconds)
    return ctx.attempt
