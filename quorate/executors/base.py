"""What every executor is: a way to turn (payload, context) into a coroutine that does the work.

An executor knows nothing of frames, credits or retries; it returns a value or raises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from ..context import GetContext
from ..errors import PayloadInvalid

if TYPE_CHECKING:
    import aiohttp


class Tools:
    """Shared, lazily made resources of one worker's executors."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.process_groups: set[int] = set()  # alive right now, for an abort
        self._threads: ThreadPoolExecutor | None = None
        self._session: aiohttp.ClientSession | None = None

    def threads(self) -> ThreadPoolExecutor:
        """A pool of as many threads as there are slots, so a job never waits for a thread."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.slots, thread_name_prefix="quorate-job")
        return self._threads

    def session(self) -> aiohttp.ClientSession:
        """One HTTP session, without cookies: jobs must not see each other's."""
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),  # the job's own timeout rules
            )
        return self._session

    async def close(self) -> None:
        """Frees what was made; a thread that ignores its stop flag is left behind."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._session is not None:
            await self._session.close()


class Executor(ABC):
    """One way to run jobs under one task name."""

    # False when cancelling the coroutine cannot stop the work (threads): then a stop is a flag,
    # and the slot stays taken until the work returns.
    interruptible = True
    # False until one of its jobs has been seen to wait: such jobs share an asyncio task.
    waits = True
    non_retryable: tuple[type[BaseException], ...] = ()

    @abstractmethod
    def start(self, payload: bytes, get_context: GetContext) -> Awaitable[Any]:
        """An awaitable of the job's output; it may raise at once (PayloadInvalid).

        `get_context` gives the job's Context, which is made only for who asks."""


def read_payload(payload: bytes, decode: msgspec.json.Decoder[Any], name: str) -> Any:
    """The typed payload of a built-in; PayloadInvalid says what does not fit."""
    try:
        return decode.decode(payload or b"{}")
    except msgspec.MsgspecError as error:
        raise PayloadInvalid(f"the payload of {name!r} does not fit: {error}") from error
