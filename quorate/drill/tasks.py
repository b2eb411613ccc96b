"""What a drill's own workers run. The names are the drill's, so that no other worker, whatever
queues it serves, is given such a job.

Each start and each end is a line in the crew's journal, with the clock of this machine: the drill
runs on the same one, so nobody's wall clock is compared with another's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from quorate import Context, NonRetryable, Scheduler

JOURNAL_VARIABLE = "QUORATE_DRILL_JOURNAL"
LOOK_SECONDS = 0.05
LOOK_PARENT_SECONDS = 1.0

app = Scheduler()


def _end_with(drill_pid: int) -> None:
    """A drill that was killed has nobody left who would end its workers."""
    while os.getppid() == drill_pid:
        time.sleep(LOOK_PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if JOURNAL_VARIABLE in os.environ:  # in a worker of a crew, and nowhere else
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _write(event: str, ctx: Context) -> None:
    """One short line in one write, so that processes may share the file."""
    line = f"{event} {time.monotonic():.6f} {os.getpid()} {ctx.job_id} {ctx.attempt}\n"
    file = os.open(os.environ[JOURNAL_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


@app.task(name="drill.quick")
async def quick(value: Any, ctx: Context) -> Any:
    """Gives back what it got."""
    _write("start", ctx)
    _write("end", ctx)
    return value


@app.task(name="drill.hold")
async def hold(until: str, ctx: Context) -> int:
    """Runs until a file appears; returns the attempt that saw it."""
    _write("start", ctx)
    while not Path(until).exists():  # noqa: ASYNC110  (another process makes it)
        await asyncio.sleep(LOOK_SECONDS)
    _write("end", ctx)
    return ctx.attempt


@app.task(name="drill.fail", max_retries=0)
async def fail(value: Any, ctx: Context) -> None:
    """A job that is beyond help: it becomes a dead letter."""
    _write("start", ctx)
    _write("end", ctx)
    raise NonRetryable("this job of a drill fails on purpose")
