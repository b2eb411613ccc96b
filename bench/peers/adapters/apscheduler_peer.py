"""APScheduler 4 on PostgreSQL: add_job from one process, a worker in another; no bulk call."""

from __future__ import annotations

import asyncio
import sys

import kit
from apscheduler import AsyncScheduler, SchedulerRole
from apscheduler.datastores.sqlalchemy import SQLAlchemyDataStore
from apscheduler.eventbrokers.asyncpg import AsyncpgEventBroker
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import create_async_engine


async def noop(text: str) -> None:
    kit.ran(text)


async def main() -> None:
    engine = create_async_engine(kit.URL.replace("postgresql:", "postgresql+asyncpg:"))
    store, events = SQLAlchemyDataStore(engine), AsyncpgEventBroker.from_async_sqla_engine(engine)

    async def left() -> int:
        async with engine.connect() as connection:
            return int((await connection.execute(sql("SELECT count(*) FROM jobs"))).scalar_one())

    role = SchedulerRole.worker
    async with AsyncScheduler(store, events, role=role, max_concurrent_jobs=100) as scheduler:
        await scheduler.configure_task("noop", func=noop)
        if sys.argv[1:] == ["work"]:
            await scheduler.run_until_stopped()
        else:
            await kit.drive_async(lambda texts: scheduler.add_job("noop", args=texts), left)


if __name__ == "__main__":
    # The task is stored by its module's name, which must be the same in both processes.
    from apscheduler_peer import main as main_by_name

    asyncio.run(main_by_name())
