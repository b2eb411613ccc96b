"""The one timer of a node. It looks at the clock often while work is under way, and while there is
none only when something is due: a heartbeat, an election.

What arrives runs the node at once, timer or not; so this is only about what time alone brings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .core import Core
from .host import Host
from .interface import Role
from .pin import now

# A longer rest could look like a node that was not scheduled, see `Core._note_stall`.
REST_SHARE = 1 / 6  # of the shortest election timeout


class Ticker:
    """`tick` is called when the time has come; it or what it wakes plans the next one."""

    def __init__(self, host: Host, tick: Callable[[], None]) -> None:
        self._host = host
        self._tick = tick
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0
        self.on_due: Callable[[float], None] = lambda due_at: None  # for who measures lateness

    def plan(self, core: Core) -> None:
        """After every run, as it may have changed what is due."""
        at, often_s = now(), self._host.timer_s
        if self._timer is not None and self._at - at <= often_s:
            return
        delay_s = max(rest_s(core, at), often_s)
        if self._timer is not None:
            if at + delay_s >= self._at:
                return
            self._timer.cancel()
        self._at = at + delay_s
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._due)

    def _due(self) -> None:
        self._timer = None
        self.on_due(self._at)
        self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def rest_s(core: Core, at: float) -> float:
    """For how long nothing is due unless something arrives; 0 while work is under way."""
    engine = core.engine
    if engine.leader() is None or _has_work(core):
        return 0.0
    longest_s = core.config.election_min_ms / 1000 * REST_SHARE
    due = engine.heartbeat_due_at() if engine.role() is Role.LEADER else engine.deadline()
    return min(due - at, longest_s)


def _has_work(core: Core) -> bool:
    """Something is under way that time alone may end, or that is done in steps."""
    return (
        not core.journal.is_durable
        or len(core.proposals) > 0
        or len(core.reads) > 0
        or core.engine.commit_index() > core.announced
        or core.engine.applied_index() < core.appliable()
        or core.replicator.lowest_sender_index() is not None
    )
