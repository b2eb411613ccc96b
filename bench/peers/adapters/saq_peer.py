"""SAQ on Redis; no bulk call, so 32 tasks enqueue."""

from __future__ import annotations

import asyncio
from typing import Any

import kit
from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

queue = RedisQueue(Redis.from_url(kit.URL or "redis://127.0.0.1"), max_concurrent_ops=32)


async def noop(_context: dict[str, Any], *, text: str) -> None:
    kit.ran(text)


settings = {"queue": queue, "functions": [noop], "concurrency": 100}


async def main() -> None:
    await queue.connect()
    await kit.drive_async(
        lambda texts: queue.enqueue("noop", text=texts[0], ttl=-1),
        lambda: queue.count("incomplete"),
    )


if __name__ == "__main__":
    asyncio.run(main())
