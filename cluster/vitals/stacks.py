"""Stacks as text: of threads in one line each, of tasks as far as asyncio knows them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import PurePath
from types import FrameType

FRAMES_MAX = 30
PARTS_SHOWN = 3  # of a file's path: enough to find it, nothing about the machine
TASKS_MAX = 2_000


def stack_line(frame: FrameType | None, frames_max: int = FRAMES_MAX) -> str:
    """`file:line in function`, innermost first, joined by ` < `."""
    places: list[str] = []
    while frame is not None and len(places) < frames_max:
        places.append(_place(frame))
        frame = frame.f_back
    return " < ".join(places + ["..."] * (frame is not None))


def _place(frame: FrameType) -> str:
    path = "/".join(PurePath(frame.f_code.co_filename).parts[-PARTS_SHOWN:])
    return f"{path}:{frame.f_lineno} in {frame.f_code.co_name}"


def thread_stacks() -> list[str]:
    """One line per thread of this process."""
    frames = sys._current_frames()
    return [
        f"{thread.name}: {stack_line(frames.get(thread.ident or 0))}"
        for thread in threading.enumerate()
    ]


def task_stacks() -> tuple[int, list[str]]:
    """How many tasks the running loop has, and where each stands; like ones share a line."""
    tasks = asyncio.all_tasks()
    counts: dict[str, int] = {}
    for line in map(_task_line, list(tasks)[:TASKS_MAX]):
        counts[line] = counts.get(line, 0) + 1
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return len(tasks), [f"{count} x {line}" for line, count in by_count]


def _task_line(task: asyncio.Task[object]) -> str:
    name = task.get_name()
    shown = "task" if name.startswith("Task-") else name
    return f"{shown}: {' < '.join(_awaiting(task.get_coro()))}"


def _awaiting(coroutine: object) -> Iterator[str]:
    """The chain of coroutines from the outermost to what is waited for, outermost first."""
    for _ in range(FRAMES_MAX):
        frame = getattr(coroutine, "cr_frame", None)
        if frame is None:
            return
        yield _place(frame)
        coroutine = getattr(coroutine, "cr_await", None)
