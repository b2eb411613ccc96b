"""Plans schedules anew when what their plans were computed with has changed.

A leader duty. The state says which releases and which versions of calendars all plans rest on; a
leader that has others looks at the schedules they concern and commits what differs. So it is
finished by whoever leads, and a failover between equal nodes computes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

from cluster.actors.actor import Actor
from cluster.actors.proposer import Proposer
from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded
from cluster.actors.slices import Slices
from cluster.clock import Clock
from cluster.machine import views
from cluster.machine.commands import ReplanSchedule, SetReleases
from cluster.machine.effects import Effects
from cluster.machine.results import Result
from cluster.machine.tables import ScheduleRow
from cluster.policy.timing import RELEASES, Calendars, Occurrence, TimingError, search
from cluster.policy.timing.basis import Basis, Change
from cluster.raft_state import RaftState

log = logging.getLogger("quorate.replanner")

RETRY_S = 0.5
# Who computed a plan from the old days, just before they changed, has committed it by then.
SECOND_LOOK_S = 6.0
CHUNK_SCHEDULES = 200
IN_FLIGHT_MAX = 400


class Replanner(Actor):
    """Mailbox: a wake-up. What there is to do is read from the state."""

    name = "replanner"
    mailbox_max = 1

    def __init__(
        self, raft: RaftState, proposer: Proposer, clock: Clock, releases: str = RELEASES
    ) -> None:
        super().__init__()
        self._raft = raft
        self._proposer = proposer
        self._clock = clock
        self._releases = releases
        self._active = False
        self._in_flight: list[asyncio.Future[Result]] = []
        self._replanned = 0
        raft.on_effects(self._on_effects)

    async def on_start(self) -> None:
        self._active = True
        self._in_flight, self._replanned = [], 0
        self.tell(None)

    async def on_stop(self) -> None:
        self._active = False

    def _on_effects(self, effects: Effects, index: int) -> None:
        if effects.calendars_changed:
            self._wake()

    def _wake(self) -> None:
        if self._active:
            self.tell(None)

    async def receive(self, message: Any) -> None:
        try:
            while (change := self._change()) is not None:
                await self._follow(change)
        except (NotLeader, OutcomeUnknown, Overloaded):
            # Refused or lost does not mean deposed; if it does, the next leader goes on.
            asyncio.get_running_loop().call_later(RETRY_S, self._wake)

    def _basis(self) -> Basis:
        rows = self._raft.state.tables.calendars.values()
        return Basis.of(self._releases, {row.name: row.version for row in rows})

    def _change(self) -> Change | None:
        """What all plans have to follow, None when they rest on what is there."""
        known = self._raft.state.releases
        basis = self._basis()
        return None if known == basis.text else Change.between(Basis.read(known), basis)

    async def _follow(self, change: Change) -> None:
        basis, known = self._basis(), self._raft.state.releases
        looked_at = 0
        if change:
            looked_at = await self._replan_all(change)
        if looked_at and change.calendars:
            await asyncio.sleep(SECOND_LOOK_S)
            await self._replan_all(change)
        await self._proposer.propose(SetReleases(basis.text))
        if looked_at:
            log.warning(
                "planned %d of %d schedules anew: %s, before %s",
                self._replanned, looked_at, basis.text, known or "unknown",
            )  # fmt: skip
        self._replanned = 0

    # -- one pass over all schedules -------------------------------------------------------------

    async def _replan_all(self, change: Change) -> int:
        """How many schedules the change concerns."""
        slices, looked_at, due = Slices(self._clock), 0, list[str]()
        for schedule_id in self._ids(change):
            await slices.step()
            row = self._row(schedule_id)
            if row is not None and change.concerns(row.plan):
                looked_at += 1
                if not await self._replan(row, change, slices):
                    due.append(schedule_id)
        while due:
            await asyncio.sleep(RETRY_S)  # the scheduler launches them, perhaps with old days
            rows = [row for schedule_id in due if (row := self._row(schedule_id)) is not None]
            due = [row.id for row in rows if not await self._replan(row, change, slices)]
        await self._answers()
        return looked_at

    def _ids(self, change: Change) -> Iterator[str]:
        """The schedules that the change may concern, while others come and go."""
        tables = self._raft.state.tables
        if not (change.tzdata or change.cron):
            rows = [tables.calendars[name] for name in sorted(change.calendars)]
            yield from dict.fromkeys(user for row in rows for user in row.users)
            return
        last: str | None = None
        while True:
            schedules = self._raft.state.tables.schedules
            chunk = list(islice(schedules.irange(last, None, (False, True)), CHUNK_SCHEDULES))
            if not chunk:
                return
            yield from chunk
            last = chunk[-1]

    def _row(self, schedule_id: str) -> ScheduleRow | None:
        """None for one that plans nothing."""
        row = self._raft.state.tables.schedules.get(schedule_id)
        return row if row is not None and row.next_fire_ms else None

    async def _replan(self, row: ScheduleRow, change: Change, slices: Slices) -> bool:
        """False when it is due: what comes next is computed when it is launched."""
        if row.id in self._raft.state.due_schedules:
            return False
        known = (row.version, row.next_fire_ms, row.next_nominal_ms)
        calendars = views.calendar_days(self._raft.state)
        try:
            following = await self._first(row, calendars, slices)
        except TimingError as error:
            log.error("schedule %s keeps its old plan: %s", row.id, error)
            return True
        now = self._row(row.id)
        if now is None or (now.version, now.next_fire_ms, now.next_nominal_ms) != known:
            return now is None  # it was launched or changed meanwhile: look again
        fire_ms = following.fire_ms if following is not None else 0
        nominal_ms = following.nominal_ms if following is not None else 0
        if (fire_ms, nominal_ms) != known[1:]:
            await self._propose(
                ReplanSchedule(
                    row.id, row.version, row.next_fire_ms, fire_ms, nominal_ms, change.reason
                )
            )
        return True

    async def _first(
        self, row: ScheduleRow, calendars: Calendars, slices: Slices
    ) -> Occurrence | None:
        return await slices.run(search(row.plan, row.id, row.accounted_ms, calendars))

    async def _propose(self, command: ReplanSchedule) -> None:
        self._in_flight.append(self._proposer.propose(command))
        self._replanned += 1
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            await self._answers()

    async def _answers(self) -> None:
        """Raises what the proposals raise: then all of it is done again, which changes nothing
        where it was done."""
        in_flight, self._in_flight = self._in_flight, []
        await asyncio.gather(*in_flight)
