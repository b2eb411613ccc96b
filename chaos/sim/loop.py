"""An asyncio loop whose time jumps to the next timer as soon as nothing is ready.

No real sleeping, no threads, no sockets: what runs on it is a function of its inputs. It refuses to
hang: a loop that waits for nothing, or that turns forever without time passing, is an error.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

TURNS_WITHOUT_TIME_MAX = 100_000

T = TypeVar("T")


class StuckError(RuntimeError):
    """Nothing can ever happen again, or everything happens without time passing."""


class _JumpingSelector(selectors.SelectSelector):
    """Never waits: the time that the loop would wait for passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StuckError("deadlock: no task can run and no timer is set")
        if timeout > 0:
            self.now_s += timeout
            self._turns = 0
            return []
        self._turns += 1
        if self._turns > TURNS_WITHOUT_TIME_MAX:
            self._turns = 0
            raise StuckError(f"livelock: {TURNS_WITHOUT_TIME_MAX} turns without time passing")
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at time 0.0; callbacks and timers keep asyncio's own order, so runs repeat."""

    def __init__(self) -> None:
        self.jumping = _JumpingSelector()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now_s


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on a virtual loop. Raises StuckError for a deadlock or a livelock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
