"""The tasks that the demo's workers run."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from quorate import Context, NonRetryable, Retry, Scheduler

LOOK_S = 0.02

app = Scheduler()


@app.task()
async def greet(name: str) -> str:
    """Runs on the worker's event loop."""
    return f"hello {name}"


@app.task()
def crunch(number: int) -> int:
    """A plain function: runs in a thread."""
    time.sleep(0.01)
    return number * number


@app.task(max_retries=4, retry=Retry(strategy="fibonacci", base_seconds=0.2, jitter=False))
async def flaky(good_attempt: int, ctx: Context) -> str:
    """Fails until its attempt number is good enough."""
    if ctx.attempt < good_attempt:
        raise ConnectionError(f"attempt {ctx.attempt} found the door closed")
    return f"through at attempt {ctx.attempt}"


@app.task()
async def hopeless(reason: str) -> None:
    """Retrying is pointless, and the task says so."""
    raise NonRetryable(reason)


@app.task(max_retries=3)
async def held(gate: str, ctx: Context) -> int:
    """Runs until this file exists: nothing ends before the demo has done its worst. The result
    tells which attempt made it."""
    ctx.progress(0.0, "started")
    while not Path(gate).exists():  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)
    return ctx.attempt


@app.task()
async def beat() -> None:
    """What the recurring schedules run."""
