"""Runs work in a forked child, which sees the state frozen at the fork and never returns.

Cheaper than a copy and harmless to the loop, at the price of copy-on-write memory while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Callable

from .interface import SnapshotError

MAX_DESCRIPTOR = 65_536
ERROR_BYTES = 2_000

# The work asks between two steps whether anybody still wants it.
AsideWork = Callable[[Callable[[], bool]], None]


class ForkedChild:
    """At most one child at a time."""

    def __init__(self) -> None:
        self._child = 0

    async def run(self, work: AsideWork) -> None:
        """Returns when the child has finished well; SnapshotError says what it died of."""
        reader, writer = os.pipe()
        parent = os.getpid()
        try:
            self._child = os.fork()
            if self._child == 0:
                run_child(lambda: work(lambda: os.getppid() == parent), writer)
            os.close(writer)
            writer = -1
            _, status = await asyncio.to_thread(os.waitpid, self._child, 0)
            self._child = 0
            if status != 0:
                said = os.read(reader, ERROR_BYTES).decode(errors="replace")
                raise SnapshotError(said or f"the child ended with status {status}")
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)

    def kill(self) -> None:
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)


def run_child(work: Callable[[], None], error_pipe: int) -> None:
    """Runs `work` in a forked child and ends it; never returns into the parent's code (B11).

    Everything inherited is closed first: the child must not keep the port or the folder's lock when
    the parent dies.
    """
    status = 1
    try:
        gc.disable()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.closerange(3, error_pipe)
        os.closerange(error_pipe + 1, MAX_DESCRIPTOR)
        with contextlib.suppress(OSError):
            os.nice(10)
        work()
        status = 0
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(error_pipe, _said(error).encode()[:ERROR_BYTES])
    finally:
        os._exit(status)


def _said(error: BaseException) -> str:
    """What an operator can read of a disk's error, and everything of a mistake of ours."""
    return str(error) if isinstance(error, OSError) else repr(error)
