"""Quorate through its own SDK: submit_many in batches of 1,000, stream worker."""

from __future__ import annotations

import asyncio

import kit

from quorate import Client, Scheduler
from quorate.requests import job_request

app = Scheduler()


@app.task()
async def noop(text: str) -> None:
    kit.ran(text)


async def main() -> None:
    async with Client(kit.URL) as client:

        async def submit(texts: list[str]) -> None:
            if len(texts) == 1:
                await client.submit("noop", texts[0])
            else:
                await client.submit_many([job_request("noop", text, {}) for text in texts])

        async def left() -> int:
            counts = (await client.stats(consistency="leader"))["jobs_by_status"]
            return sum(count for status, count in counts.items() if status != "completed")

        await kit.drive_async(submit, left, chunk=1_000, lanes=4)


if __name__ == "__main__":
    asyncio.run(main())
