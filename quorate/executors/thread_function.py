"""Runs a plain function in a bounded pool of threads.

Python cannot stop a thread, so a stop only raises `ctx.cancelled`; the function should look at it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable
from functools import partial
from typing import Any

from ..context import GetContext
from ..tasks import Task
from .base import Executor, Tools


class ThreadFunction(Executor):
    """A thread task bound to its payload type."""

    interruptible = False

    def __init__(self, task: Task[Any], tools: Tools) -> None:
        signature = task.signature()
        self._function = task.function
        self._bind = signature.bind
        self._context = signature.context
        self._tools = tools
        self.non_retryable = task.non_retryable

    def start(self, payload: bytes, get_context: GetContext) -> Awaitable[Any]:
        """Decodes the payload here and hands the call to a thread, with the job's contextvars."""
        arguments = self._bind(payload)
        if self._context is not None:
            arguments[self._context] = get_context()
        call = partial(contextvars.copy_context().run, self._function, **arguments)
        return asyncio.get_running_loop().run_in_executor(self._tools.threads(), call)
