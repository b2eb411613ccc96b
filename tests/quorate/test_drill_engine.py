"""The engine with small scripts against a real node: order, early ends, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from quorate import Client, Conflict, JobRequest
from quorate.drill.announcement import TAG, end_all, standing
from quorate.drill.criteria import holds
from quorate.drill.engine import run
from quorate.drill.report import ABORTED, FAIL, PASS, Report
from quorate.drill.scene import Options, Scene
from quorate.drill.script import Script
from quorate.drill.step import DrillError, Step
from quorate.testing import local_node


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with local_node() as url, Client(url) as connected:
        yield connected


class Toy(Script):
    """Puts jobs and a schedule into its queue."""

    name = "toy"
    summary = "A script of three steps."
    at_fault: Callable[[Toy], None] = staticmethod(lambda toy: None)
    hangs = False

    def steps(self) -> Sequence[Step]:
        return (
            Step("baseline", "fill", self.begin),
            Step("fault", "break", self.fault),
            Step("validation", "judge", self.check),
            Step("failback", "mend", self.mend),
        )

    async def begin(self) -> str:
        await self.scene.test_jobs.submit("scheduled", "drill.quick", [1, 2, 3], delay=3600)
        queue = self.scene.queue
        await self.client.schedules.put(queue, "drill.quick", "0 3 29 2 *", queue=queue)
        return "3 jobs"

    async def fault(self) -> None:
        type(self).at_fault(self)
        if self.hangs:
            await asyncio.Event().wait()

    async def check(self) -> None:
        self.scene.judge(holds("judged", 1, 1))

    async def mend(self) -> None:
        self.scene.judge(holds("mended", 1, 1))


async def play(client: Client, kind: type[Script], minutes: float = 30) -> Report:
    return await run(kind, client, Options(minutes=minutes), lambda text: None)


async def left(client: Client) -> tuple[int, int, int]:
    stats = await client.stats()
    schedules = [view async for view in client.schedules.iterate()]
    return stats["jobs_by_status"]["pending"], len(await standing(client)), len(schedules)


def outcomes(report: Report) -> list[str]:
    return [step.outcome for step in report.steps]


async def test_a_drill_that_goes_well_leaves_nothing(client: Client) -> None:
    report = await play(client, Toy)
    assert (report.verdict, outcomes(report)) == (PASS, ["done"] * 4)
    assert report.steps[0].detail == "3 jobs"
    assert [c.name for c in report.criteria] == [
        "judged",
        "mended",
        "nothing of the drill is left",
    ]
    assert await left(client) == (0, 0, 0)
    assert (await play(client, Toy)).verdict == PASS  # another one may follow at once


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DrillError("no worker runs a job"), "no worker runs a job"),
        (TimeoutError(), "it took too long"),
    ],
)
async def test_a_step_that_fails_skips_the_rest_but_not_the_failback(
    client: Client, error: Exception, told: str
) -> None:
    def fail(toy: Toy) -> None:
        raise error

    report = await play(client, type("Failing", (Toy,), {"at_fault": staticmethod(fail)}))
    assert (report.verdict, outcomes(report)) == (FAIL, ["done", "failed", "skipped", "done"])
    assert report.steps[1].detail == told
    assert await left(client) == (0, 0, 0)


async def test_an_aborted_drill_is_put_back_and_cleaned(client: Client) -> None:
    def abort(toy: Toy) -> None:
        toy.scene.abort("signal SIGINT")

    kind = type("Aborting", (Toy,), {"at_fault": staticmethod(abort), "hangs": True})
    report = await play(client, kind)
    assert (report.verdict, outcomes(report)) == (ABORTED, ["done", "aborted", "skipped", "done"])
    assert report.steps[1].detail == "signal SIGINT"
    assert await left(client) == (0, 0, 0)


async def test_a_drill_says_when_there_was_little_to_compare(client: Client) -> None:
    class Looking(Toy):
        def steps(self) -> Sequence[Step]:
            return (Step("baseline", "look", self.look), *super().steps())

    told = (await play(client, Looking)).notes
    assert told == [
        "100 random jobs were to be compared; the cluster had 0 that were not the drill's own."
    ]
    await client.submit_many([JobRequest(name="theirs") for _ in range(100)])
    assert (await play(client, Looking)).notes == []


async def test_others_see_a_drill_and_end_it(client: Client) -> None:
    at_fault = asyncio.Event()
    kind = type(
        "Hanging", (Toy,), {"at_fault": staticmethod(lambda toy: at_fault.set()), "hangs": True}
    )
    drill = asyncio.create_task(play(client, kind))
    await at_fault.wait()
    (announcement,) = await standing(client)
    assert announcement.payload["drill"] == "toy"
    assert announcement.tags == [TAG]
    with pytest.raises(DrillError, match="another drill runs"):
        await play(client, Toy)
    assert await end_all(client) == {"queues": [announcement.queue]}
    report = await drill
    assert (report.verdict, report.steps[1].detail) == (
        ABORTED,
        "its announcement was cancelled",
    )
    assert await left(client) == (0, 0, 0)
    assert await end_all(client) == {"queues": []}


async def test_a_forgotten_drill_ends_when_its_time_is_up(client: Client) -> None:
    report = await play(client, type("Endless", (Toy,), {"hangs": True}), minutes=0.01)
    assert (report.verdict, report.steps[1].detail) == (ABORTED, "its time is up (--minutes)")
    assert await left(client) == (0, 0, 0)


async def test_what_a_killed_drill_left_is_taken_away(client: Client) -> None:
    scene: asyncio.Future[Scene] = asyncio.get_running_loop().create_future()
    kind = type(
        "Killed",
        (Toy,),
        {"at_fault": staticmethod(lambda toy: scene.set_result(toy.scene)), "hangs": True},
    )
    drill = asyncio.create_task(play(client, kind))
    job_ids = (await scene).test_jobs.all_ids
    live = [await client.jobs.get(job_id) for job_id in job_ids]
    assert all(job.expires_at is not None for job in live)  # they go, whoever forgets them
    await end_all(client)
    assert [(await client.jobs.get(job_id)).status for job_id in job_ids] == ["cancelled"] * 3
    await drill


async def test_a_key_that_is_taken_is_a_conflict_also_in_a_batch(client: Client) -> None:
    await client.submit("mail", key="one", on_conflict="reject")
    with pytest.raises(Conflict):
        await client.submit("mail", key="one", on_conflict="reject")
