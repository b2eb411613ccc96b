"""Runs an `async def` task on the worker's event loop; a stop cancels it where it awaits."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ..context import GetContext
from ..tasks import Task
from .base import Executor, Tools


class AsyncFunction(Executor):
    """An async task bound to its payload type."""

    def __init__(self, task: Task[Any], tools: Tools) -> None:
        signature = task.signature()
        self._function = task.function
        self._bind = signature.bind
        self._context = signature.context
        self.non_retryable = task.non_retryable
        self.waits = False

    def start(self, payload: bytes, get_context: GetContext) -> Awaitable[Any]:
        """Decodes the payload and makes the coroutine."""
        arguments = self._bind(payload)
        if self._context is not None:
            arguments[self._context] = get_context()
        coroutine: Awaitable[Any] = self._function(**arguments)
        return coroutine
