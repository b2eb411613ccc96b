"""Raises the cluster's feature level once all members know the next one. A leader duty.

What a member's release knows it says when it connects, so a node that was restarted with another
release has said so before it takes part again. Nothing is raised while a member cannot be asked: a
release that met a level it does not know would have to stop.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

from cluster.actors.actor import Actor
from cluster.actors.proposer import Proposer
from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded
from cluster.machine.commands import RaiseLevel
from cluster.machine.levels import LEVELS
from cluster.raft_state import MemberLevels, RaftState

log = logging.getLogger("quorate.upgrader")

HURRY_S = 0.05  # a new cluster shall not begin below its level because a node connected late
HURRIED_S = 10.0
LOOK_S = 1.0


class UpgradeRefused(Exception):
    """The level stays as it is; each of `reasons` names what stands in the way."""

    def __init__(self, level: int, to: int, reasons: list[str]) -> None:
        super().__init__(f"the feature level stays at {level}, not {to}: {'; '.join(reasons)}")
        self.reasons = reasons


class Survey(NamedTuple):
    """What could be done now. `willing` is the highest level that all members let the cluster be
    raised to, 0 while one of them has not said what it knows."""

    level: int
    willing: int
    is_new: bool  # no member ever ran a release that knows less than `willing`
    members: list[MemberLevels]

    def reasons_against(self, to: int) -> list[str]:
        """Why the level cannot be raised to this one."""
        reasons = []
        for member in self.members:
            support = member.support
            if not member.connected:
                reasons.append(f"{member.id} is not connected: start it, or remove it")
            elif support is None:
                reasons.append(f"{member.id} runs a release without feature levels: upgrade it")
            elif support.highest < to:
                reasons.append(f"{member.id} knows levels up to {support.highest}: upgrade it")
            elif support.willing < to:
                reasons.append(f"{member.id} holds it at {support.held} (feature_level_max)")
        return reasons


class Upgrader(Actor):
    """Mailbox: a wake-up. `delay_s` passes between the moment that all members know a level and the
    raise: until then each of them can go back to the release that it ran before."""

    name = "upgrader"
    mailbox_max = 1

    def __init__(self, raft: RaftState, proposer: Proposer, delay_s: float) -> None:
        super().__init__()
        self._raft = raft
        self._proposer = proposer
        self._delay_s = delay_s
        self._handle: asyncio.TimerHandle | None = None
        self._began_s = 0.0
        self._pending = 0  # the level that is waited for, and since when
        self._since_s = 0.0

    # -- life ------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        self._began_s = asyncio.get_running_loop().time()
        self._pending = 0
        self.tell("look")

    async def on_stop(self) -> None:
        self._pending = 0
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    async def receive(self, message: Any) -> None:
        if self._raft.feature_level >= self._raft.support.willing:
            return  # for as long as this process runs
        target = self._due()
        if target:
            try:
                await self._raise(target)
            except (NotLeader, OutcomeUnknown, Overloaded) as error:
                log.debug("feature level %d was not raised: %s", target, error)
        loop = asyncio.get_running_loop()
        in_hurry = loop.time() - self._began_s < HURRIED_S
        self._handle = loop.call_later(HURRY_S if in_hurry else LOOK_S, self.tell, "look")

    def _due(self) -> int:
        """The level to raise the cluster to by itself now; 0: none yet."""
        survey = self.survey()
        if not survey.willing:
            return 0  # somebody is away; who comes back with less starts the delay anew
        now_s = asyncio.get_running_loop().time()
        if survey.willing != self._pending:
            self._pending, self._since_s = survey.willing, now_s
            if survey.willing > survey.level and not survey.is_new:
                log.info(
                    "all members know feature level %d: the cluster is raised in %.0f s",
                    survey.willing, self._delay_s,
                )  # fmt: skip
        if survey.willing <= survey.level:
            return 0
        is_due = survey.is_new or now_s - self._since_s >= self._delay_s
        return survey.willing if is_due else 0

    async def _raise(self, to: int) -> None:
        await self._proposer.propose(RaiseLevel(to))
        log.info("raised to feature level %d: %s", to, LEVELS[to])

    # -- by hand ---------------------------------------------------------------------------------

    def survey(self) -> Survey:
        members = self._raft.levels()
        supports = [member.support for member in members]
        known = [support for support in supports if support is not None]
        willing = 0
        if known and len(known) == len(supports):
            willing = min(support.willing for support in known)
        is_new = all(support.born >= willing for support in known)
        return Survey(self._raft.feature_level, willing, is_new, members)

    def raises_in_s(self) -> float | None:
        """When the level is raised by itself; None while nothing is under way on this node."""
        if self._pending <= self._raft.feature_level:
            return None
        waited_s = asyncio.get_running_loop().time() - self._since_s
        return max(self._delay_s - waited_s, 0.0)

    async def raise_now(self, to: int | None, *, is_trial: bool = False) -> int:
        """The level that the cluster has now, or would have; None means the highest that any member
        knows, so that it is refused while another one does not.

        Raises UpgradeRefused, and what a proposal raises."""
        survey = self.survey()
        supports = [member.support for member in survey.members]
        highest = max(support.highest for support in supports if support is not None)
        target = highest if to is None else to
        if target < survey.level:
            raise UpgradeRefused(survey.level, target, ["a cluster never goes back"])
        if target == survey.level:
            return target
        if reasons := survey.reasons_against(target):
            raise UpgradeRefused(survey.level, target, reasons)
        if not is_trial:
            await self._raise(target)
        return target
