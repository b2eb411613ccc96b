"""Launches due schedules: computes the next fire time and commits both as one decision.

A leader duty. Cron arithmetic happens here and nowhere else; the machine compares and sets on the
expected fire time, so an occurrence is launched once, whoever proposes it and however often.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from cluster.actors.actor import Actor
from cluster.actors.proposer import Proposer
from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded
from cluster.clock import Clock
from cluster.machine.commands import FireSchedule
from cluster.machine.effects import Effects
from cluster.machine.results import Result
from cluster.machine.tables import ScheduleRow
from cluster.policy.cron import CronError
from cluster.policy.planning import next_occurrence
from cluster.raft_state import RaftState

log = logging.getLogger("quorate.scheduler")

RETRY_S = 0.2


class Scheduler(Actor):
    """Mailbox: ids of schedules whose timer fired."""

    name = "scheduler"
    mailbox_max = 100_000

    def __init__(self, raft: RaftState, proposer: Proposer, clock: Clock, catch_up_ms: int) -> None:
        super().__init__()
        self._raft = raft
        self._proposer = proposer
        self._clock = clock
        self._catch_up_ms = catch_up_ms
        self._active = False
        raft.on_effects(self._on_effects)

    async def on_start(self) -> None:
        """A predecessor may have died between the timer and the launch."""
        self._active = True
        for row in self._raft.state.tables.schedules.values():
            if row.next_fire_ms and row.timer is None:
                self.tell(row.id)

    async def on_stop(self) -> None:
        self._active = False

    def _on_effects(self, effects: Effects, index: int) -> None:
        if self._active:
            for schedule_id, _ in effects.schedules_due:
                self._enqueue(schedule_id)

    def _enqueue(self, schedule_id: str) -> None:
        if self._active and not self.tell(schedule_id):
            self._enqueue_later(schedule_id)

    async def receive(self, message: Any) -> None:
        row = self._raft.state.tables.schedules.get(message)
        if row is None or row.timer is not None or not row.next_fire_ms:
            return  # paused, or planned anew and not due
        command = self._decide(row)
        try:
            # Not awaited one by one: due schedules of the same moment share a log entry.
            future = self._proposer.propose(command)
        except (NotLeader, Overloaded):
            self._enqueue_later(row.id)
            return
        future.add_done_callback(partial(self._launched, row.id))

    def _decide(self, row: ScheduleRow) -> FireSchedule:
        now_ms = max(self._clock.now_ms(), self._raft.state.now_ms)
        try:
            next_ms, skipped = next_occurrence(
                row.cron, row.every_ms, row.next_fire_ms, now_ms, self._catch_up_ms
            )
        except CronError as error:
            # Launch this one and plan none: raising would take down every leader in turn.
            log.error("schedule %s ends: %s", row.id, error)
            next_ms, skipped = 0, 0
        if skipped:
            log.warning("schedule %s: %d occurrences are too old and skipped", row.id, skipped)
        return FireSchedule(row.id, row.next_fire_ms, next_ms, skipped)

    def _enqueue_later(self, schedule_id: str) -> None:
        """Refused or lost does not mean deposed; if it does, the next leader looks in on_start."""
        asyncio.get_running_loop().call_later(RETRY_S, self._enqueue, schedule_id)

    def _launched(self, schedule_id: str, future: asyncio.Future[Result]) -> None:
        try:
            future.result()  # a refusal says that the occurrence was launched, or its plan changed
        except (NotLeader, OutcomeUnknown, Overloaded):
            self._enqueue_later(schedule_id)
