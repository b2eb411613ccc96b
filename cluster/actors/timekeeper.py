"""Lets replicated time pass: proposes an empty batch when the next timer is due.

Sleeps exactly until then; an idle cluster writes nothing. A leader duty.
"""

from __future__ import annotations

import asyncio
from typing import Any

from cluster.actors.actor import Actor
from cluster.actors.proposer import Proposer
from cluster.clock import Clock
from cluster.machine.effects import Effects
from cluster.raft_state import RaftState

SLEEP_MS_MAX = 1_000  # the wall clock may be stepped meanwhile
RETRY_S = 0.2
NOTHING = -1


class Timekeeper(Actor):
    """Plans one wake-up, for the earliest timer of the wheel."""

    name = "timekeeper"
    mailbox_max = 1

    def __init__(self, raft: RaftState, proposer: Proposer, clock: Clock) -> None:
        super().__init__()
        self._raft = raft
        self._proposer = proposer
        self._clock = clock
        self._handle: asyncio.TimerHandle | None = None
        self._planned_ms = 0
        self._active = False
        raft.on_effects(self._on_effects)

    async def on_start(self) -> None:
        self._active = True
        self._plan()

    async def on_stop(self) -> None:
        self._active = False
        self._cancel()

    async def receive(self, message: Any) -> None:
        self._cancel()
        self._plan()

    def _on_effects(self, effects: Effects, index: int) -> None:
        if self._active:
            self._plan()

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _plan(self) -> None:
        due_ms = self._raft.state.timers.wheel.next_due_ms()
        if due_ms is None:
            self._cancel()
            return
        if self._handle is not None:
            if self._planned_ms == due_ms:
                return
            self._cancel()
        # What replicated time has passed is due at the next batch, whatever this clock says. A
        # clock that was stepped back has to catch up with it before anything else is due.
        wait_ms = due_ms - self._clock.now_ms() if due_ms > self._raft.state.now_ms else 0
        self._planned_ms = due_ms
        self._handle = asyncio.get_running_loop().call_later(
            min(max(wait_ms, 0), SLEEP_MS_MAX) / 1000, self._due
        )

    def _due(self) -> None:
        self._handle = None
        due_ms = self._raft.state.timers.wheel.next_due_ms()
        if due_ms is None or due_ms > max(self._clock.now_ms(), self._raft.state.now_ms):
            self._plan()
            return
        self._proposer.tick()
        # Applying it plans anew. It may be refused or get lost, though, so look again.
        self._planned_ms = NOTHING
        self._handle = asyncio.get_running_loop().call_later(RETRY_S, self._due)
