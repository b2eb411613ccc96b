"""Workers die, stall until they count as lost, and leave in good order."""

from __future__ import annotations

import asyncio

from chaos.live.harm.field import Field
from chaos.live.harm.kill import die
from chaos.live.harm.pause import sleep


async def killed(field: Field, seconds: float) -> None:
    await die(seconds, field.worker)


async def all_killed(field: Field, seconds: float) -> None:
    await die(seconds, *field.cluster.workers)


async def stalled(field: Field, seconds: float) -> None:
    """It wakes up with results of attempts that are others' by then, if it stalled for long."""
    await sleep(seconds, field.worker)


async def restarted(field: Field, seconds: float) -> None:
    worker = field.worker
    await worker.stop()
    await asyncio.sleep(seconds)
    await worker.start()
