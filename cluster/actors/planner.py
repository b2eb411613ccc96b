"""Looks ahead for the API: first occurrences, previews, ranges to backfill, what a pause skipped.

Runs on any node, decides nothing and remembers nothing. A plan may name thousands of instants, so
every walk lets the loop run in between.
"""

from __future__ import annotations

from cluster.actors.slices import Slices
from cluster.clock import Clock
from cluster.machine import views
from cluster.plan import Plan
from cluster.policy.timing import Calendars, Occurrence, Omitted, check, next_occurrence, walk
from cluster.policy.timing.catchup import Decision, passed
from cluster.raft_state import RaftState

STEPS_MAX = 200_000  # of one question; a plan that omits more than this in a row has a strange one


class Planner:
    """All times are epoch ms."""

    def __init__(self, raft: RaftState, clock: Clock) -> None:
        self._raft = raft
        self._clock = clock

    @property
    def calendars(self) -> Calendars:
        return views.calendar_days(self._raft.state)

    @property
    def now_ms(self) -> int:
        """Replicated time may be ahead of this node's clock, and nothing is planned before it."""
        return max(self._clock.now_ms(), self._raft.state.now_ms)

    async def plan_put(
        self, plan: Plan, schedule_id: str, now_ms: int
    ) -> tuple[Plan, Occurrence | None]:
        """The plan as it is to be stored, and its first occurrence after `now_ms`.

        Raises TimingError for a plan that makes no sense."""
        checked = check(plan, schedule_id, now_ms, self.calendars)
        return checked, next_occurrence(checked, schedule_id, now_ms, self.calendars)

    async def preview(
        self, plan: Plan, schedule_id: str, after_ms: int, count: int, omitted: bool = False
    ) -> tuple[list[Occurrence | Omitted], bool]:
        """The next `count` after a moment, and whether they are all there will ever be.

        With `omitted` those that the plan takes out are listed and counted as well."""
        slices, found = Slices(self._clock), list[Occurrence | Omitted]()
        for steps, what in enumerate(walk(plan, schedule_id, after_ms, self.calendars)):
            if len(found) == count or steps == STEPS_MAX:
                return found, False
            if omitted or isinstance(what, Occurrence):
                found.append(what)
            await slices.step()
        return found, True

    async def nominals(
        self, plan: Plan, schedule_id: str, from_ms: int, until_ms: int, count_max: int
    ) -> tuple[list[int], bool]:
        """The occurrences of [from, until), at most so many, and whether these are all."""
        slices, found = Slices(self._clock), list[int]()
        for steps, what in enumerate(walk(plan, schedule_id, from_ms - 1, self.calendars)):
            if what.nominal_ms >= until_ms:
                break
            if len(found) == count_max or steps == STEPS_MAX:
                return found, False
            if isinstance(what, Occurrence):
                found.append(what.nominal_ms)
            await slices.step()
        return found, True

    async def resume(
        self, plan: Plan, schedule_id: str, accounted_ms: int, now_ms: int
    ) -> Decision:
        """What a pause skipped since `accounted_ms` (0: the pause skipped nothing known), and what
        comes next."""
        since_ms = accounted_ms or now_ms
        work = passed(plan, schedule_id, since_ms, now_ms, self.calendars)
        return await Slices(self._clock).run(work)
