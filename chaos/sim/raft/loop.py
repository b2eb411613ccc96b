"""A virtual loop on which a node can stand still while the world goes on.

Whatever a node schedules runs in a context that names it, so a paused node's callbacks gather and
run late, in order, and the world is told after each one that something may have changed.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, Protocol

from chaos.sim.loop import VirtualLoop


class Clock(Protocol):
    """Shows `began_s + now_s * rate`."""

    began_s: float
    rate: float
    spent_s: float  # so much work is done already that takes place in this very moment


class Being(Protocol):
    """What callbacks belong to: one node from its start to its end."""

    frozen: list[asyncio.Handle] | None  # gathers callbacks during a pause

    def moved(self) -> None:
        """A callback ran."""

    @property
    def clock(self) -> Clock:
        """The clock of the machine it runs on."""


BEING: ContextVar[Being | None] = ContextVar("being", default=None)


class _Aware:
    """Mixed into asyncio's handles: runs the callback, unless its node is paused."""

    __slots__ = ()
    _context: Context

    def _run(self) -> None:
        being = self._context.get(BEING)
        if being is None:
            super()._run()  # type: ignore[misc]
        elif being.frozen is not None:
            being.frozen.append(self)  # type: ignore[arg-type]
        else:
            super()._run()  # type: ignore[misc]
            being.moved()


class _Handle(_Aware, asyncio.Handle):
    __slots__ = ()


class _Timer(_Aware, asyncio.TimerHandle):
    __slots__ = ()


class NodeLoop(VirtualLoop):
    """Reaches into BaseEventLoop's two queues: asyncio has no hook for making handles."""

    _ready: Any
    _scheduled: list[asyncio.TimerHandle]

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def thaw(self, being: Being) -> None:
        """The pause is over: everything that was held back runs, in the order of its arrival."""
        held, being.frozen = being.frozen or [], None
        self._ready.extend(handle for handle in held if not handle.cancelled())
