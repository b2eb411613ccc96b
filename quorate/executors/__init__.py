"""Every way to run a job: one file and one line in one of these tables each.

Built-in names are known to every worker, even without a module of tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..tasks import Task
from .async_function import AsyncFunction
from .base import Executor, Tools
from .command import Command
from .http import Http
from .simulate import Simulate
from .thread_function import ThreadFunction

KINDS: dict[str, Callable[[Task[Any], Tools], Executor]] = {
    "async": AsyncFunction,
    "thread": ThreadFunction,
}
BUILT_IN: dict[str, Callable[[Tools], Executor]] = {
    "simulate": Simulate,
    "command": Command,
    "http": Http,
}


def executors_for(tasks: Iterable[Task[Any]], tools: Tools) -> dict[str, Executor]:
    """An executor for every name a worker answers to; a task may replace a built-in."""
    table = {name: make(tools) for name, make in BUILT_IN.items()}
    table.update({task.name: KINDS[task.kind](task, tools) for task in tasks})
    return table


__all__ = ["BUILT_IN", "KINDS", "Executor", "Tools", "executors_for"]
