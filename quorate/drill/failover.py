"""The leader goes: handed over on request, or killed by the operator's own tooling."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Sequence
from typing import Any

from ..errors import QuorateError
from . import criteria, jobs
from .load import Load, longest_gap
from .scene import Scene
from .script import Script
from .step import DrillError, Step

WATCH_SECONDS = 5.0  # of quiet before, and after
BACK_SECONDS = 120.0  # for a killed node to be back and to lead again
LOOK_SECONDS = 0.05


class Failover(Script):
    """What was acknowledged is there, what ran goes on, and the gap is short."""

    name = "failover"
    summary = "The leader hands over (or is killed) under 20 submissions a second."

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.load = Load(self.client, scene.queue)
        self.leader = ("", "")  # id and HTTP address, before
        self.fault_at = 0.0

    def steps(self) -> Sequence[Step]:
        kill = self.scene.options.kill_command
        fault = "kill the leader with the operator's command" if kill else "hand leadership over"
        return (
            Step("baseline", "start two workers on the drill's queue", self.hire),
            Step("baseline", "submit jobs of every kind", self.fill),
            Step("baseline", "note counts, random jobs and the leader", self.look),
            Step("baseline", "light load, no fault", self.begin_load),
            Step("fault", fault, self.kill if kill else self.hand_over),
            Step("recovery", "wait for another leader and for submissions", self.wait),
            Step("validation", "gaps, and what was acknowledged", self.check_load),
            Step("validation", "compare jobs and counts", self.compare),
            Step("validation", "let the running jobs end", self.let_end),
            Step("validation", "run the test jobs", self.run_test_jobs),
            Step("failback", "leadership back to where it was", self.fail_back),
        )

    async def leave(self) -> None:
        await self.load.stop()

    async def _cluster(self) -> dict[str, Any]:
        return await self.client.cluster(consistency="leader")

    async def look(self) -> str | None:
        view = await self._cluster()
        self.leader = (view["leader_id"], view["leader"])
        self.scene.report.notes.append(f"The leader was {self.leader[0]}.")
        return await super().look()

    async def begin_load(self) -> str | None:
        began = time.monotonic()
        self.load.start()
        await asyncio.sleep(WATCH_SECONDS)
        acks = [ack.at for ack in self.load.acks]
        gap = longest_gap(acks, began, time.monotonic())
        return f"{len(acks)} accepted, longest gap {criteria.seconds_text(gap)}"

    async def hand_over(self) -> str | None:
        self.fault_at = time.monotonic()
        await self.client.transfer_leadership()
        return None

    async def kill(self) -> str | None:
        self.fault_at = time.monotonic()
        return await self._command(self.scene.options.kill_command or "")

    async def _command(self, line: str) -> str:
        process = await asyncio.create_subprocess_exec(*shlex.split(line), *self.leader)
        if code := await process.wait():
            raise DrillError(f"{line!r} ended with exit code {code}")
        return " ".join((line, *self.leader))

    async def wait(self) -> str | None:
        give_up_at = self.fault_at + self.rto_goal
        while (now := await self._leader_now()) in ("", self.leader[0]):
            if time.monotonic() > give_up_at:
                raise DrillError(f"no other leader within {self.rto_goal:g} s")
            await asyncio.sleep(LOOK_SECONDS)
        found_at = time.monotonic()
        await asyncio.wait_for(self.load.until_ack_after(found_at), self.rto_goal)
        await asyncio.sleep(WATCH_SECONDS)
        await self.load.stop()
        return f"{now} leads"

    async def _leader_now(self) -> str:
        try:
            return str((await self.client.cluster())["leader_id"] or "")
        except QuorateError:
            return ""

    async def check_load(self) -> str | None:
        report, judge, goal = self.scene.report, self.scene.judge, self.rto_goal
        until = time.monotonic()
        acks = self.load.acks
        gap = longest_gap((ack.at for ack in acks), self.fault_at, acks[-1].at)
        report.rto_seconds = gap
        report.rto_of = "longest time without an accepted submission"
        judge(criteria.within("RTO", gap, goal))
        ids = [ack.job_id for ack in acks]
        ended = await jobs.until_status(self.client, ids, ("completed",), goal)
        begins = [mark.at for mark in self.scene.crew.marks() if mark.event == "start"]
        last = max(at for at in begins if at <= until)
        judge(
            criteria.within("time without starts", longest_gap(begins, self.fault_at, last), goal)
        )
        judge(criteria.holds("submissions that failed", 0, len(self.load.refused)))
        known = await jobs.statuses(self.client, ids)
        report.rpo_jobs = len(set(ids) - set(known))
        judge(criteria.nothing_lost("RPO", ids, known))
        judge(criteria.same_counts("jobs of the load", {"completed": len(ids)}, ended))
        judge(criteria.ended_once("ends", await jobs.timelines(self.client, known)))
        return None

    async def fail_back(self) -> str | None:
        leader = self.leader[0]
        if not self.fault_at or await self._leader_now() == leader:
            return "it never left"
        line = self.scene.options.start_command
        detail = await self._command(line) if line else None
        loop = asyncio.get_running_loop()
        give_up_at, problem = loop.time() + BACK_SECONDS, "it did not come back"
        while loop.time() < give_up_at and await self._leader_now() != leader:
            try:
                await self.client.transfer_leadership(leader)
            except QuorateError as error:  # not up yet, or behind
                problem = str(error)
                await asyncio.sleep(1.0)
        now = await self._leader_now()
        self.scene.judge(criteria.holds("leader after failback", leader, now))
        return detail if now == leader else problem
