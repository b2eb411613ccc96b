"""Leadership is handed over, again and again."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import aiohttp

from chaos.live.harm.field import Field

BETWEEN_S = 0.3


async def once(field: Field, seconds: float) -> None:
    with suppress(aiohttp.ClientError, TimeoutError):  # the answer may get lost with the leader
        await field.cluster.request("POST", "/v1/cluster/transfer", timeout_s=10.0)
    await asyncio.sleep(seconds)


async def flapping(field: Field, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until_s = loop.time() + seconds
    while loop.time() < until_s:
        await once(field, BETWEEN_S)
