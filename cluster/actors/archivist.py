"""Writes finished jobs to this node's own history, on every node, leader or not.

Only hands them over as they are; the history's own thread does the rest. The log may be truncated
only behind what the history vouches for, so nothing finished is ever in neither place. When a
snapshot has taken the place of entries that were never applied here, the history is told so.
"""

from __future__ import annotations

import asyncio

from cluster.history import History, PastEvent
from cluster.history.occasions import SEQ_BITS
from cluster.machine.chronicle import LAUNCHES
from cluster.machine.effects import Effects
from cluster.machine.model import ScheduleEvent
from cluster.machine.state import State
from cluster.raft_state import RaftState


class Archivist:
    """Feeds the history from effects."""

    def __init__(self, raft: RaftState, history: History) -> None:
        self._raft = raft
        self._history = history
        self._restored_ms: int | None = None  # the time in a snapshot that nothing followed yet
        raft.on_effects(self._on_effects)
        raft.on_restored(self._on_restored)
        raft.before_truncation(self._before_truncation)

    def settle(self) -> None:
        """Tells the history where the log goes on behind a snapshot, once that is known."""
        if self._restored_ms is not None and self._raft.applied_index:
            self._skip_to(self._raft.applied_index)

    def _on_restored(self, state: State) -> None:
        self._restored_ms = state.now_ms
        # The state is in place before consensus says which entry it is of.
        asyncio.get_running_loop().call_soon(self.settle)

    def _skip_to(self, index: int) -> None:
        assert self._restored_ms is not None
        self._history.skip_to(index, self._restored_ms)
        self._restored_ms = None

    async def _before_truncation(self, index: int) -> None:
        self.settle()
        await self._history.flushed(index)

    def _on_effects(self, effects: Effects, index: int) -> None:
        if self._restored_ms is not None:
            self._skip_to(index - 1)  # what lies between is not the machine's
        if effects.jobs_finished:
            self._history.add(index, effects.jobs_finished)
        if effects.schedule_events:
            self._tell(effects.schedule_events, index)

    def _tell(self, told: list[tuple[str, ScheduleEvent]], index: int) -> None:
        """What befell schedules; their launches are known from the jobs themselves."""
        events = [
            PastEvent(
                index << SEQ_BITS | place, schedule_id, event.at_ms, event.kind, event.nominal_ms,
                event.last_ms, event.count, event.reason, event.job_id,
            )
            for place, (schedule_id, event) in enumerate(told)
            if event.kind not in LAUNCHES
        ]  # fmt: skip
        if events:
            self._history.add_schedule_events(index, events)
