"""Launches due schedules: what is due, what is too late and what comes next, as one decision.

A leader duty. Time arithmetic happens in `policy.timing`, the machine compares and sets on the
expected fire time, so an occurrence is launched once, whoever proposes it and however often.

Ten thousand schedules may be due in the same second, and one of them may have missed a month of
minutes. So work is done in slices, few launches are in flight at a time, and whoever takes long
waits until everybody else is launched.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from cluster.actors.actor import Actor
from cluster.actors.proposer import Proposer
from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded
from cluster.actors.slices import Slices
from cluster.clock import Clock
from cluster.machine import views
from cluster.machine.commands import FireSchedule
from cluster.machine.effects import Effects
from cluster.machine.results import Result
from cluster.machine.tables import ScheduleRow
from cluster.policy.timing.catchup import COUNTED_MAX, Decision, decide
from cluster.raft_state import RaftState

log = logging.getLogger("quorate.scheduler")

RETRY_S = 0.2
PORTION_MAX = 400  # launches that share a proposal; applying so many takes a few milliseconds
IN_FLIGHT_MAX = 2 * PORTION_MAX  # one portion is decided and encoded while another one commits
TURN_STEPS = 200  # of one schedule, before the others have theirs
# All schedules that are due share so many steps, so that after a long outage thousands of them are
# back within seconds. Counts that would take longer are then lower bounds.
STEPS_SHARED = 1_000_000
STEPS_MIN = 200


class Case(NamedTuple):
    """A schedule that is due, as it was when its decision was begun."""

    schedule_id: str
    version: int
    fire_ms: int
    work: Generator[None, None, Decision]


class Scheduler(Actor):
    """Mailbox: a wake-up. What is due is read from the state and kept in order."""

    name = "scheduler"
    mailbox_max = 1

    def __init__(self, raft: RaftState, proposer: Proposer, clock: Clock) -> None:
        super().__init__()
        self._raft = raft
        self._proposer = proposer
        self._clock = clock
        self._active = False
        # In a plain dict, whoever takes the first entry passes by all that were taken before.
        self._due: OrderedDict[str, None] = OrderedDict()
        self._long: deque[Case] = deque()
        self._portion: dict[str, FireSchedule] = {}  # decided, not proposed yet
        self._in_flight: dict[asyncio.Future[Result], int] = {}  # with the number of launches
        raft.on_effects(self._on_effects)

    async def on_start(self) -> None:
        """A predecessor may have died between the timer and the launch."""
        self._active = True
        self._in_flight.clear()
        self._portion.clear()
        self._long.clear()
        self._due = OrderedDict(self._raft.state.due_schedules)
        self.tell(None)

    async def on_stop(self) -> None:
        self._active = False

    def _on_effects(self, effects: Effects, index: int) -> None:
        if self._active and effects.schedules_due:
            for schedule_id, _ in effects.schedules_due:
                self._due[schedule_id] = None
            self.tell(None)

    def _enqueue(self, schedule_ids: Iterable[str]) -> None:
        if self._active:
            self._due.update(dict.fromkeys(schedule_ids))
            self.tell(None)

    def _enqueue_later(self, schedule_ids: Iterable[str]) -> None:
        """Refused or lost does not mean deposed; if it does, the next leader looks in on_start."""
        asyncio.get_running_loop().call_later(RETRY_S, self._enqueue, schedule_ids)

    # -- deciding --------------------------------------------------------------------------------

    async def receive(self, message: Any) -> None:
        slices = Slices(self._clock)
        while self._due or self._long or self._portion:
            if len(self._portion) >= PORTION_MAX or (self._portion and not self._due):
                await self._propose()
                continue
            case = self._begin() if self._due else self._long.popleft()
            if case is not None:
                await self._go_on(case, slices)

    def _begin(self) -> Case | None:
        schedule_id, _ = self._due.popitem(last=False)
        row = self._due_row(schedule_id)
        if row is None:
            return None
        waiting = len(self._due) + len(self._long) + 1
        work = decide(
            row.plan,
            row.id,
            (row.next_nominal_ms, row.next_fire_ms),
            self._now_ms(),
            views.calendar_days(self._raft.state),
            row.accounted_ms,
            min(max(STEPS_SHARED // waiting, STEPS_MIN), COUNTED_MAX),
        )
        return Case(row.id, row.version, row.next_fire_ms, work)

    def _due_row(self, schedule_id: str) -> ScheduleRow | None:
        """None if it is paused, gone, or planned anew and not due."""
        state = self._raft.state
        return (
            state.tables.schedules.get(schedule_id) if schedule_id in state.due_schedules else None
        )

    def _now_ms(self) -> int:
        return max(self._clock.now_ms(), self._raft.state.now_ms)

    async def _go_on(self, case: Case, slices: Slices) -> None:
        try:
            for _ in range(TURN_STEPS):
                next(case.work)
                await slices.step()
        except StopIteration as done:
            await slices.step()
            self._launch(case, done.value, "")
        except (ValueError, ArithmeticError, LookupError) as error:
            # A TimingError, or a bug. Launch this one and plan none: raising would take down every
            # leader in turn.
            log.error("schedule %s ends: %s", case.schedule_id, error)
            self._launch(case, None, f"broken: {error}")
        else:
            self._long.append(case)

    # -- launching -------------------------------------------------------------------------------

    def _launch(self, case: Case, decision: Decision | None, ended: str) -> None:
        row = self._due_row(case.schedule_id)
        if row is None:
            return
        if (row.version, row.next_fire_ms) != (case.version, case.fire_ms):
            self._enqueue((row.id,))  # it changed meanwhile, and is due again
            return
        self._portion[row.id] = _command(row, decision, ended)

    async def _propose(self) -> None:
        """Due schedules of the same moment share a log entry and its answer."""
        while sum(self._in_flight.values()) + len(self._portion) > IN_FLIGHT_MAX:
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
        portion, self._portion = self._portion, {}
        try:
            future = self._proposer.propose_all(tuple(portion.values()))
        except (NotLeader, Overloaded):
            self._enqueue_later(portion)
            return
        self._in_flight[future] = len(portion)
        future.add_done_callback(partial(self._launched, portion))

    def _launched(self, portion: Iterable[str], future: asyncio.Future[Result]) -> None:
        self._in_flight.pop(future, None)
        with suppress(NotLeader, OutcomeUnknown, Overloaded):
            future.result()
        # Refused, lost, or the clock was set back between the decision and its entry.
        due = self._raft.state.due_schedules
        again = [schedule_id for schedule_id in portion if schedule_id in due]
        if again:
            self._enqueue_later(again)


def _command(row: ScheduleRow, decision: Decision | None, ended: str) -> FireSchedule:
    if decision is None:
        return FireSchedule(row.id, row.next_fire_ms, 0, version=row.version, ended=ended)
    following = decision.next
    return FireSchedule(
        row.id,
        row.next_fire_ms,
        following.fire_ms if following is not None else 0,
        next_nominal_ms=following.nominal_ms if following is not None else 0,
        launches=decision.launches,
        late=decision.late,
        missed=decision.missed,
        version=row.version,
        ended=ended,
    )
