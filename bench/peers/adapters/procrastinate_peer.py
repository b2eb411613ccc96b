"""Procrastinate on PostgreSQL: batch_defer_async; finished jobs are deleted."""

from __future__ import annotations

import asyncio

import kit
from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=kit.URL, min_size=4, max_size=16))


@app.task(name="noop")
async def noop(text: str) -> None:
    kit.ran(text)


async def left() -> int:
    sql = "SELECT count(*) AS jobs FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
    return (await app.connector.execute_query_one_async(sql))["jobs"]


async def main() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()

        async def submit(texts: list[str]) -> None:
            if len(texts) == 1:
                await noop.defer_async(text=texts[0])
            else:
                await noop.batch_defer_async(*({"text": text} for text in texts))

        await kit.drive_async(submit, left, chunk=1_000, lanes=4)


if __name__ == "__main__":
    asyncio.run(main())
