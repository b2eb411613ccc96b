"""The file system under all nodes is full, and empties again."""

from __future__ import annotations

import asyncio
import os
import shutil

from chaos.live.harm.field import Field

LEFT_BYTES = 1 << 20  # for the logs of the processes


async def full(field: Field, seconds: float) -> None:
    assert field.disk is not None, "this scenario's cluster needs `disk_mb`"
    filler = field.disk / "filler"
    with filler.open("wb") as file:
        free = shutil.disk_usage(field.disk).free
        os.posix_fallocate(file.fileno(), 0, max(1, free - LEFT_BYTES))
    try:
        await asyncio.sleep(seconds)
    finally:
        filler.unlink()
