"""Writes finished jobs to this node's own history, on every node, leader or not.

Only hands them over as they are; the history's own thread does the rest. The log may be truncated
only behind what the history vouches for, so nothing finished is ever in neither place.
"""

from __future__ import annotations

from cluster.history import History, PastEvent
from cluster.machine.chronicle import LAUNCHES
from cluster.machine.effects import Effects
from cluster.machine.model import ScheduleEvent
from cluster.raft_state import RaftState

SEQ_BITS = 20  # events of one log entry; an entry has a few thousand commands at most


class Archivist:
    """Feeds the history from effects."""

    def __init__(self, raft: RaftState, history: History) -> None:
        self._history = history
        raft.on_effects(self._on_effects)
        raft.before_truncation(history.flushed)

    def _on_effects(self, effects: Effects, index: int) -> None:
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
