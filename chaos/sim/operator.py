"""The user who looks after schedules: makes them, pauses, changes, triggers and backfills them, and
declares holidays at short notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from chaos.sim.client import RETRY, TIMEOUT_MS, SimClient, Unanswered
from chaos.sim.timetable import CALENDAR, DAY_MS, Entry
from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded
from cluster.machine.commands import (
    CancelJobs,
    Command,
    DeleteSchedule,
    PauseSchedule,
    PutCalendar,
    PutSchedule,
    ResumeSchedule,
    StartBackfill,
    TriggerSchedule,
)
from cluster.machine.effects import Effects, ready_rows
from cluster.machine.model import OVERLAPS, JobSpec
from cluster.machine.results import BackfillStarted, Done, Rejected, Result, Scheduled
from cluster.machine.tables import ScheduleRow

if TYPE_CHECKING:
    from chaos.sim.node import SimNode
    from chaos.sim.world import World

SPEC = JobSpec("work", "default", 5, 2, RETRY, TIMEOUT_MS)
BACKFILL_MS = 60_000  # of the past, by one backfill


class Operator(SimClient):
    """Works as long as other users do."""

    def __init__(self, world: World, pace: float) -> None:
        self._pace = pace  # deeds a second
        self._backfills = 0
        super().__init__(world, "operator")

    async def _work(self) -> None:
        await self._insist_put_all()
        if not self._pace:
            return
        deeds = [self._pause, self._change, self._trigger, self._backfill, self._declare]
        while not self.stopped:
            await asyncio.sleep(self.world.rng.expovariate(self._pace))
            entry = self.world.rng.choice(list(self.world.timetable.values()))
            await self.world.rng.choice(deeds)(entry)

    async def _ask(self, work: Callable[[SimNode], Coroutine[Any, Any, Result]]) -> Result | None:
        """One request to whom it takes for the leader; None without an answer."""
        node = self._leader()
        try:
            return await self._call(node, partial(work, node))
        except (NotLeader, OutcomeUnknown, Overloaded, Unanswered):
            return None

    async def _until_done(self, work: Callable[[SimNode], Coroutine[Any, Any, Result]]) -> Result:
        while True:
            result = await self._ask(work)
            if result is not None:
                return result
            await asyncio.sleep(self.world.rng.uniform(0.02, 0.3))

    # -- making them -----------------------------------------------------------------------------

    async def _insist_put_all(self) -> None:
        await self.insist(PutCalendar(CALENDAR, [], []))
        for entry in self.world.timetable.values():
            result = await self._until_done(partial(_put, entry))
            if not isinstance(result, Scheduled) and result is not Rejected.CONFLICT:
                self.world.fail(f"schedule {entry.id} was answered {result!r}")

    async def delete_all(self) -> None:
        for schedule_id in self.world.timetable:
            result = await self.insist(DeleteSchedule(schedule_id))
            if not isinstance(result, Done) and result is not Rejected.UNKNOWN_SCHEDULE:
                self.world.fail(f"deleting {schedule_id} was answered {result!r}")

    # -- deeds -----------------------------------------------------------------------------------

    async def _pause(self, entry: Entry) -> None:
        await self.insist(PauseSchedule(entry.id, "for a while"))
        await asyncio.sleep(self.world.rng.choice((0.1, 3.0, 15.0)))
        while (result := await self._until_done(partial(_resume, entry))) is Rejected.STALE_FIRE:
            self.world.trace(f"{entry.id} cannot be resumed yet")
        if isinstance(result, Rejected):
            self.world.fail(f"resuming {entry.id} was answered {result!r}")

    async def _change(self, entry: Entry) -> None:
        """Another policy, the same plan: what comes next stays."""
        overlap = self.world.rng.choice(OVERLAPS)
        await self._until_done(partial(_redefine, entry, overlap))

    async def _trigger(self, entry: Entry) -> None:
        overlap = self.world.rng.choice(OVERLAPS)
        await self._ask(partial(_say, TriggerSchedule(entry.id, overlap=overlap)))

    async def _backfill(self, entry: Entry) -> None:
        """A part of the past that nobody else backfills."""
        self._backfills += 1
        until_ms = self.world.scene.moment_ms - self._backfills * BACKFILL_MS
        overlap, rate = self.world.rng.choice(OVERLAPS), self.world.rng.choice((0, 0, 600))
        work = partial(_backfill, entry, until_ms, overlap, rate)
        asked: list[int] = []
        result = await self._ask(partial(work, asked))
        if isinstance(result, BackfillStarted):
            self.world.backfilled(entry.id, result.backfill_id, asked)

    async def _declare(self, entry: Entry) -> None:
        """Today and its neighbours are holidays, or they are not."""
        today = self.world.true_now_ms() // DAY_MS
        days = self.world.rng.choice(([], [today - 1, today, today + 1]))
        await self.insist(PutCalendar(CALENDAR, days, ["feast"] * len(days)))


class Reaper(SimClient):
    """Ends jobs a while after they became ready, in place of workers."""

    def __init__(self, world: World) -> None:
        self._dying: list[int] = []
        super().__init__(world, "reaper")

    def feed(self, effects: Effects) -> None:
        """Each job once: a killed one does not come back here."""
        for job in ready_rows(effects):
            life_s = self.world.rng.choice((0.1, 1.0, 30.0, 200.0))
            self.world.loop.call_later(life_s, self._doom, job.id)

    def _doom(self, job_id: int) -> None:
        self._dying.append(job_id)

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            dying, self._dying = self._dying, []
            if dying:
                await self.insist(CancelJobs(dying, self.name))


async def _say(command: Command, node: SimNode) -> Result:
    return await node.proposer.propose(command)


async def _put(entry: Entry, node: SimNode) -> Result:
    plan, first = await node.planner.plan_put(entry.plan, entry.id, node.planner.now_ms)
    return await node.proposer.propose(
        PutSchedule(
            entry.id, SPEC, entry.id.encode(), "", 0, first.fire_ms if first else 0, plan=plan,
            overlap=entry.overlap, max_executions=entry.max_executions,
            next_nominal_ms=first.nominal_ms if first else 0,
        )
    )  # fmt: skip


def _row(entry: Entry, node: SimNode) -> ScheduleRow:
    """Raises NotLeader: all schedules exist, but this node is behind."""
    row = node.raft.state.tables.schedules.get(entry.id)
    if row is None:
        raise NotLeader(None)
    return row


async def _redefine(entry: Entry, overlap: str, node: SimNode) -> Result:
    row = _row(entry, node)
    return await node.proposer.propose(
        PutSchedule(
            entry.id, SPEC, entry.id.encode(), "", 0, row.next_fire_ms, True, plan=row.plan,
            overlap=overlap, max_executions=entry.max_executions,
            next_nominal_ms=row.next_nominal_ms, expected_version=row.version,
        )
    )  # fmt: skip


async def _resume(entry: Entry, node: SimNode) -> Result:
    row = _row(entry, node)
    now_ms = node.planner.now_ms
    decision = await node.planner.resume(row.plan, entry.id, row.accounted_ms, now_ms)
    following = decision.next
    return await node.proposer.propose(
        ResumeSchedule(
            entry.id,
            following.fire_ms if following else 0,
            following.nominal_ms if following else 0,
            decision.missed,
        )
    )


async def _backfill(
    entry: Entry, until_ms: int, overlap: str, rate: int, asked: list[int], node: SimNode
) -> Result:
    nominals, _ = await node.planner.nominals(
        entry.plan, entry.id, until_ms - BACKFILL_MS, until_ms, 30
    )
    if not nominals:
        return Rejected.UNKNOWN_BACKFILL
    asked[:] = nominals
    return await node.proposer.propose(StartBackfill(entry.id, nominals, overlap, rate))
