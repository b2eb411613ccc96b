"""The last lines of the log, and stacks as text."""

from __future__ import annotations

import asyncio
import logging

from cluster.vitals import Vitals
from cluster.vitals.recent import LINE_CHARACTERS_MAX, RecentLines
from cluster.vitals.stacks import task_stacks, thread_stacks


def test_the_last_lines_are_kept_and_no_more() -> None:
    recent = RecentLines(lines_max=3)
    logger = logging.Logger("quorate.test")
    logger.addHandler(recent)
    for number in range(10):
        logger.warning("line %d", number)
    assert [line.split("quorate.test ")[1] for line in recent.lines()] == [
        "line 7",
        "line 8",
        "line 9",
    ]
    logger.warning("a" * 10_000 + "the end")
    assert len(recent.lines()[-1]) < LINE_CHARACTERS_MAX + 10
    assert recent.lines()[-1].endswith("the end")


def test_a_node_keeps_lines_while_it_lives() -> None:
    vitals = Vitals()
    logger = logging.getLogger("quorate.somewhere")
    vitals.start()
    logger.error("during")
    vitals.stop()
    logger.error("after")
    assert [line.split()[-1] for line in vitals.recent.lines()] == ["during"]


async def test_tasks_tell_where_they_wait_and_like_ones_share_a_line() -> None:
    gate = asyncio.Event()

    async def inner() -> None:
        await gate.wait()

    async def outer() -> None:
        await inner()

    tasks = [asyncio.create_task(outer()) for _ in range(3)]
    named = asyncio.create_task(outer(), name="actor:dispatcher")
    await asyncio.sleep(0)
    count, lines = task_stacks()
    gate.set()
    await asyncio.gather(*tasks, named)
    assert count == 5
    (line,) = [line for line in lines if line.startswith("3 x task: ")]
    assert "in outer < " in line and "in inner < " in line
    assert [line for line in lines if line.startswith("1 x actor:dispatcher: ")]


def test_threads_tell_where_they_are() -> None:
    (own,) = [line for line in thread_stacks() if line.startswith("MainThread: ")]
    assert "in test_threads_tell_where_they_are < " in own
