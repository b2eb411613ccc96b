"""Keeps the number of dead letters bounded: the oldest leave first. A leader duty.

The bound is this leader's setting, so the purge is a decision in the log and not a rule of the
machine: nodes with different settings stay equal.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from cluster.actors.actor import Actor
from cluster.actors.proposer import Proposer
from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded
from cluster.machine.commands import PurgeDead
from cluster.machine.effects import Effects
from cluster.raft_state import RaftState

PURGE_JOBS_MAX = 5_000


class Janitor(Actor):
    """Wakes when a job died and the bound is passed."""

    name = "janitor"
    mailbox_max = 1

    def __init__(self, raft: RaftState, proposer: Proposer, dead_letters_max: int) -> None:
        super().__init__()
        self._raft = raft
        self._proposer = proposer
        self._dead_letters_max = dead_letters_max
        self._active = False
        raft.on_effects(self._on_effects)

    def _surplus(self) -> int:
        return len(self._raft.state.tables.dead) - self._dead_letters_max

    async def on_start(self) -> None:
        self._active = True
        self.tell("look")

    async def on_stop(self) -> None:
        self._active = False

    def _on_effects(self, effects: Effects, index: int) -> None:
        if self._active and effects.jobs_finished and self._surplus() > 0:
            self.tell("look")

    async def receive(self, message: Any) -> None:
        while (surplus := self._surplus()) > 0:
            dead = self._raft.state.tables.dead
            oldest = list(islice(dead, min(surplus, PURGE_JOBS_MAX)))
            try:
                await self._proposer.propose(PurgeDead(oldest))
            except (NotLeader, OutcomeUnknown, Overloaded):
                return  # the next death looks again
