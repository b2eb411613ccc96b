"""The actor: one task, one bounded mailbox, no shared locks.

`tell` never blocks and says when the mailbox is full; a crash ends the task and the supervisor
starts the actor anew, which then rebuilds what it needs from state in `on_start`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

MAILBOX_MESSAGES_MAX = 10_000
MESSAGES_PER_TURN = 64  # then others run: a thousand schedules of one minute must not stop the node


class Actor:
    """Subclasses define `on_start`, `receive` and, if they hold resources, `on_stop`."""

    name = "actor"
    mailbox_max = MAILBOX_MESSAGES_MAX

    def __init__(self) -> None:
        self._mailbox: deque[Any] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self.dropped_total = 0

    def tell(self, message: Any) -> bool:
        """Queue a message; False when the mailbox is full: shed load or coalesce."""
        if len(self._mailbox) >= self.mailbox_max:
            self.dropped_total += 1
            return False
        self._mailbox.append(message)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        return True

    @property
    def waiting(self) -> int:
        """Messages in the mailbox."""
        return len(self._mailbox)

    async def on_start(self) -> None:
        """Rebuild from state. Runs at every start, also after a crash."""

    async def receive(self, message: Any) -> None:
        """Handle one message. An exception restarts the actor."""

    async def on_stop(self) -> None:
        """Release what `on_start` acquired."""

    async def run(self) -> None:
        """The actor's life; ends by cancellation or by an exception."""
        self._mailbox.clear()
        try:
            await self.on_start()
            while True:
                handled = 0
                while self._mailbox:
                    await self.receive(self._mailbox.popleft())
                    handled += 1
                    if handled % MESSAGES_PER_TURN == 0:
                        await asyncio.sleep(0)
                self._waiting = asyncio.get_running_loop().create_future()
                await self._waiting
        finally:
            self._waiting = None
            await self.on_stop()
