"""The client for code without an event loop: the same calls on a private loop thread.

Not for use inside a running event loop; there the async client is the right one.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from .durations import Duration
from .handle import Handle
from .transport import Consistency
from .views import JobView

if TYPE_CHECKING:
    from .client import Client

T = TypeVar("T")
R = TypeVar("R")


class LoopThread:
    """One daemon thread that runs an event loop until `stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="quorate-sync", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for `work`; an interrupt (Ctrl-C) here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Ends the thread; idempotent."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class _SyncView:
    """An async object with every coroutine method made blocking, and sub-resources likewise."""

    def __init__(self, target: object, thread: LoopThread) -> None:
        self._target = target
        self._thread = thread

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if inspect.iscoroutinefunction(value):
            return self._blocking(value)
        if inspect.isasyncgenfunction(value):
            return self._iterating(value)
        if type(value).__module__.startswith("quorate.") and not callable(value):
            return _SyncView(value, self._thread)
        return value

    def _blocking(self, method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return _wrap(self._thread.run(method(*args, **kwargs)), self._thread)

        call.__name__, call.__doc__ = method.__name__, method.__doc__
        return call

    def _iterating(self, method: Callable[..., AsyncIterator[Any]]) -> Callable[..., Iterator[Any]]:
        def iterate(*args: Any, **kwargs: Any) -> Iterator[Any]:
            source = method(*args, **kwargs)
            end = object()

            async def following() -> Any:
                return await anext(source, end)

            while (item := self._thread.run(following())) is not end:
                yield item

        return iterate


class SyncHandle(Generic[R]):
    """`Handle` with blocking methods."""

    __slots__ = ("_handle", "_thread", "id")

    def __init__(self, handle: Handle[R], thread: LoopThread) -> None:
        self.id = handle.id
        self._handle = handle
        self._thread = thread

    def __repr__(self) -> str:
        return repr(self._handle)

    def job(self, *, consistency: Consistency | None = None) -> JobView:
        """The job as it is now."""
        return self._thread.run(self._handle.job(consistency=consistency))

    def status(self, *, consistency: Consistency | None = None) -> str:
        """pending, running, completed, failed, cancelled or skipped."""
        return self._thread.run(self._handle.status(consistency=consistency))

    def cancel(self) -> JobView:
        """Cancels the job. Conflict if it is finished."""
        return self._thread.run(self._handle.cancel())

    def wait(self, timeout: Duration | None = None) -> JobView:
        """The finished job, whatever its end. ResultTimeout after `timeout`."""
        return self._thread.run(self._handle.wait(timeout))

    def result(self, timeout: Duration | None = None) -> R:
        """What the task returned; raises like `Handle.result`."""
        return self._thread.run(self._handle.result(timeout))


def _wrap(value: Any, thread: LoopThread) -> Any:
    """Handles keep talking to the cluster, so they must be blocking too; data stays data."""
    if isinstance(value, Handle):
        return SyncHandle(value, thread)
    if isinstance(value, list):
        return [_wrap(item, thread) for item in value]
    return value


class SyncClient(_SyncView):
    """`Client` with blocking methods: `client.jobs.get(id)`, `client.submit(name).result()`."""

    def __init__(
        self,
        nodes: str | Sequence[str] | None = None,
        *,
        retry_seconds: float = 30.0,
        consistency: Consistency | None = None,
    ) -> None:
        from .client import Client

        client: Client = Client(nodes, retry_seconds=retry_seconds, consistency=consistency)
        super().__init__(client, LoopThread())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections and ends the thread."""
        target: Any = self._target
        self._thread.run(target.close())
        self._thread.stop()
