"""arq on Redis; no bulk call, so 32 tasks enqueue. Polls every 10 ms instead of every 500."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import kit
from arq import create_pool
from arq.connections import RedisSettings
from arq.constants import default_queue_name

SETTINGS = RedisSettings.from_dsn(kit.URL or "redis://127.0.0.1")


async def noop(_context: dict[str, Any], text: str) -> None:
    kit.ran(text)


class WorkerSettings:
    functions: ClassVar[list[Any]] = [noop]
    redis_settings = SETTINGS
    max_jobs = 100
    poll_delay = 0.01
    keep_result = 0


async def main() -> None:
    pool = await create_pool(SETTINGS)
    await kit.drive_async(
        lambda texts: pool.enqueue_job("noop", texts[0]),
        lambda: pool.zcard(default_queue_name),
    )


if __name__ == "__main__":
    asyncio.run(main())
