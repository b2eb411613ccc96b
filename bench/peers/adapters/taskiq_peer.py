"""Taskiq on a Redis stream, its broker with acknowledgements; no bulk call, so 32 tasks kick."""

from __future__ import annotations

import asyncio

import kit
from redis.asyncio import Redis
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(url=kit.URL or "redis://127.0.0.1", max_connection_pool_size=100)


@broker.task(task_name="noop")
async def noop(text: str) -> None:
    kit.ran(text)


async def left() -> int:
    """Not yet delivered, plus delivered and not acknowledged."""
    async with Redis(connection_pool=broker.connection_pool) as server:
        groups = await server.xinfo_groups(broker.queue_name)
    return sum((group["lag"] or 0) + group["pending"] for group in groups)


async def main() -> None:
    await broker.startup()
    await kit.drive_async(lambda texts: noop.kiq(texts[0]), left)


if __name__ == "__main__":
    asyncio.run(main())
