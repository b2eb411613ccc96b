"""`make demo`: a cluster of three nodes and two workers, told as a story that checks itself.

Each act prints what it proves. The exit code is 0 only if every check held.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from chaos.live.processes import Child, LocalCluster, NodeChild
from quorate import Client, Handle, JobRequest, JobView

FOLDER = Path(".demo")  # unless another is named as the first argument
TASKS = "chaos.live.demo_tasks:app"
BATCH = 100
LOAD_BATCHES_BEFORE_KILL = 10
LOAD_BATCHES_AFTER_KILL = 30


class Story:
    """Prints acts and remembers whether every check held."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self._started = time.monotonic()
        self._act = 0

    def act(self, title: str) -> None:
        self._act += 1
        print(f"\n[{time.monotonic() - self._started:5.1f} s] Act {self._act}: {title}", flush=True)

    def tell(self, text: str) -> None:
        print(f"          {text}", flush=True)

    def check(self, holds: bool, claim: str) -> None:
        print(f"      {'ok ' if holds else 'NOT'} {claim}", flush=True)
        if not holds:
            self.failed.append(claim)


class Demo:
    """One run: the acts share a cluster, its workers and a client."""

    def __init__(self, story: Story, cluster: LocalCluster, client: Client) -> None:
        self.story = story
        self.cluster = cluster
        self.client = client
        self.submitted: list[str] = []
        self.expected_failed = 0

    async def submit_many(self, requests: Sequence[JobRequest]) -> list[Handle[Any]]:
        handles = await self.client.submit_many(requests)
        self.submitted += [handle.id for handle in handles]
        return handles

    async def submit(self, name: str, payload: Any = None, **options: Any) -> Handle[Any]:
        handle = await self.client.submit(name, payload, **options)
        self.submitted.append(handle.id)
        return handle

    async def finished(self, handles: Sequence[Handle[Any]], seconds: float = 40) -> list[JobView]:
        return await asyncio.gather(*(handle.wait(seconds) for handle in handles))

    # -- acts ------------------------------------------------------------------------------------

    async def start_workers(self) -> tuple[Child, Child]:
        self.story.act("three nodes elect a leader, two workers find it")
        leader = await self.cluster.leader()
        starts = (self.cluster.worker(name, TASKS, slots=8) for name in ("anna", "bert"))
        anna, bert = await asyncio.gather(*starts)
        status = await self.client.cluster()
        self.story.tell(f"{leader.name} leads in term {status['term']}; workers anna and bert")
        self.story.check(len(status["members"]) == 3, "three members see each other")
        return anna, bert

    async def immediate(self) -> None:
        self.story.act("immediate jobs: async functions, threads, a command, a simulation")
        handles = [
            await self.submit("greet", "world"),
            await self.submit("crunch", 12),
            await self.submit("command", {"command": "echo from a shell"}),
            await self.submit("simulate", {"execution_time_ms": 30, "fail_rate": 0}),
        ]
        views = await self.finished(handles)
        for view in views:
            self.story.tell(
                f"{view.name:9} on {view.worker_id}, attempt {view.attempt}: {view.output}"
            )
        self.story.check(views[0].output == "hello world", "the async function's result came back")
        self.story.check(views[1].output == 144, "the thread's result came back")
        self.story.check(all(v.status == "completed" for v in views), "all four completed")
        many = await self.submit_many(
            [JobRequest(name="greet", payload=_raw(f'"{i}"')) for i in range(200)]
        )
        done = await self.finished(many)
        share = Counter(view.worker_id for view in done)
        self.story.tell(f"200 more in one request, shared out as {dict(share)}")
        self.story.check(len(share) == 2, "both workers got some")

    async def delayed(self) -> None:
        self.story.act("delayed jobs start when they are due")
        handles = [await self.submit("greet", "later", delay=d) for d in (0.5, 1.0, 1.5)]
        views = await self.finished(handles)
        late_ms = [_ms(v.started_at) - _ms(v.scheduled_at) for v in views]
        self.story.tell(f"due after 0.5, 1.0 and 1.5 s; started {late_ms} ms after that")
        self.story.check(all(late >= 0 for late in late_ms), "none started early")

    async def failing(self) -> None:
        self.story.act(
            "failing jobs are retried with back-off, hopeless ones go to the dead letters"
        )
        flaky = await self.submit("flaky", 3)
        hopeless = await self.submit("hopeless", "the account does not exist")
        good, bad = await self.finished([flaky, hopeless])
        for event in await self.client.jobs.timeline(flaky.id):
            self.story.tell(f"{event.event:10} attempt {event.attempt or '-'} {event.detail or ''}")
        self.story.check(
            (good.status, good.attempt) == ("completed", 3), "the third attempt succeeded"
        )
        self.story.check((bad.status, bad.attempt) == ("failed", 1), "no retry for a final error")
        page = await self.client.dlq.list()
        self.story.check(
            [i.job_id for i in page.items] == [hopeless.id], "it waits as a dead letter"
        )
        self.expected_failed += 1

    async def start_schedules(self) -> None:
        self.story.act("recurring jobs: every 2 s, and a cron expression")
        # Workers die and stall here, so by default the one or other run would be left out.
        schedules, together = self.client.schedules, "allow_all"
        every = await schedules.create("beat", every=2, id="every-2s", overlap=together)
        cron = await schedules.create("beat", "* * * * *", id="each-minute", overlap=together)
        self.story.tell(
            f"every-2s first at {_clock(every.next_run)}, each-minute at {_clock(cron.next_run)}"
        )
        self.story.tell("they go on through everything that follows; the last act counts them")

    async def lose_worker(self, victim: Child) -> None:
        self.story.act(f"kill -9 worker {victim.name} in the middle of its jobs")
        gate = (self.cluster.folder / "gate-1").resolve()
        handles = await self._holding(gate, 6)
        victim_id = await self._worker_id(victim.name)
        held = [h.id for h in handles if (await h.job()).worker_id == victim_id]
        await victim.kill()
        gate.touch()
        views = await self.finished(handles)
        moved = [v for v in views if v.job_id in held]
        self.story.tell(f"{victim.name} held {len(held)} of 6 jobs; all went to another worker")
        self.story.check(bool(held), "the dead worker was holding jobs")
        self.story.check(all(v.status == "completed" for v in views), "all six completed")
        self.story.check(
            all(v.attempt == 2 and v.worker_id != victim_id for v in moved),
            "each of its jobs ran again elsewhere as attempt 2",
        )

    async def _holding(self, gate: Path, count: int) -> list[Handle[Any]]:
        """Jobs that run until the gate is opened, all of them begun."""
        handles = [await self.submit("held", str(gate)) for _ in range(count)]

        async def all_running() -> bool:
            return all([(await handle.job()).status == "running" for handle in handles])

        await self.cluster.until(all_running, "the jobs to run")
        return handles

    async def _worker_id(self, name: str) -> str:
        workers = await self.client.workers.list()
        return next(w.worker_id for w in workers if w.name == name)

    async def lose_leader(self) -> NodeChild:
        leader = await self.cluster.leader()
        self.story.act(f"kill -9 the leader {leader.name} under load")
        accepted_at: list[float] = []
        handles: list[Handle[Any]] = []
        killed_at = 0.0

        async def load() -> None:
            while not killed_at or len([t for t in accepted_at if t > killed_at]) < (
                LOAD_BATCHES_AFTER_KILL
            ):
                batch = [JobRequest(name="greet", payload=_raw('"load"')) for _ in range(BATCH)]
                handles.extend(await self.submit_many(batch))
                accepted_at.append(time.monotonic())

        gate = (self.cluster.folder / "gate-2").resolve()
        running = await self._holding(gate, 4)
        loading = asyncio.create_task(load())

        async def loaded() -> bool:
            return loading.done() or len(accepted_at) >= LOAD_BATCHES_BEFORE_KILL

        await self.cluster.until(loaded, "some load")
        killed_at = time.monotonic()
        await leader.kill()
        await loading
        gap_ms = (min(t for t in accepted_at if t > killed_at) - killed_at) * 1000
        successor = await self.cluster.leader()
        self.story.tell(
            f"{successor.name} leads now; next submission accepted after {gap_ms:.0f} ms"
        )
        gate.touch()
        views = await self.finished(running + handles[-BATCH:], 60)
        self.story.check(successor is not leader, "another node took over")
        self.story.check(gap_ms < 5_000, "submissions went on within 5 s")
        self.story.check(
            all(v.status == "completed" for v in views), "jobs of before and after all completed"
        )
        self.story.check(
            all(v.attempt == 1 for v in views[: len(running)]),
            "jobs that were running meanwhile finished on their first attempt",
        )
        return leader

    async def rejoin(self, node: NodeChild) -> None:
        self.story.act(f"{node.name} comes back and catches up")
        await node.start()
        await self.cluster.ready()
        self.story.tell(f"{node.name} is ready again")

    async def account(self) -> None:
        self.story.act("the account: nothing lost, nothing doubled")

        async def recurred() -> bool:
            return (await self.client.schedules.get("every-2s")).run_count >= 3

        await self.cluster.until(recurred, "every-2s to recur")
        for schedule_id in ("every-2s", "each-minute"):
            await self._count_occurrences(schedule_id)

        async def settled() -> bool:
            by_status = (await self.client.stats())["jobs_by_status"]
            return by_status["pending"] + by_status["running"] == 0

        await self.cluster.until(settled, "the last jobs to finish", 60)
        by_status = (await self.client.stats())["jobs_by_status"]
        launched = sum([(await self.client.schedules.get(s)).run_count for s in _SCHEDULES])
        completed = len(self.submitted) - self.expected_failed + launched
        self.story.tell(
            f"{len(self.submitted)} submitted, {launched} launched by schedules: {by_status}"
        )
        self.story.check(
            len(set(self.submitted)) == len(self.submitted), "every submission has its own id"
        )
        self.story.check(by_status["completed"] == completed, f"{completed} completed, as expected")
        self.story.check(by_status["failed"] == self.expected_failed, "1 failed, as expected")
        await self._compare_digests()

    async def _count_occurrences(self, schedule_id: str) -> None:
        """Pause, then compare the jobs of the schedule with its nominal times."""
        await self.client.schedules.pause(schedule_id, "the demo counts")
        schedule = await self.client.schedules.get(schedule_id)
        nominal = [
            _ms(job.nominal_at)
            async for job in self.client.jobs.iterate(name="beat", limit=500)
            if job.schedule_id == schedule_id
        ]
        step_ms = 2_000 if schedule_id == "every-2s" else 60_000
        nominal.sort()
        even = all(b - a == step_ms for a, b in pairwise(nominal))
        self.story.tell(f"{schedule_id}: {len(nominal)} occurrences")
        self.story.check(
            len(nominal) == schedule.run_count, f"{schedule_id}: one job an occurrence"
        )
        self.story.check(even, f"{schedule_id}: none missed, none doubled, through all of it")
        if schedule_id == "every-2s":
            self.story.check(len(nominal) >= 3, "every-2s: it did recur")

    async def _compare_digests(self) -> None:
        digests: dict[str, tuple[int, str]] = {}

        async def equal() -> bool:
            for node in self.cluster.nodes:
                status = await self.cluster.get("/v1/cluster", node)
                digests[node.name] = (status["applied_index"], status["digest"])
            return len(set(digests.values())) == 1

        with contextlib.suppress(TimeoutError):
            await self.cluster.until(equal, "equal digests", 20)
        self.story.tell(f"log position and digest by node: {digests}")
        self.story.check(len(set(digests.values())) == 1, "all three replicas are equal")


_SCHEDULES = ("every-2s", "each-minute")


def _raw(text: str) -> Any:
    import msgspec

    return msgspec.Raw(text.encode())


def _ms(moment: datetime | None) -> int:
    assert moment is not None
    return round(moment.timestamp() * 1000)


def _clock(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%H:%M:%S") if moment else "never"


async def run(folder: Path) -> int:
    """The whole story; returns the exit code."""
    story = Story()
    shutil.rmtree(folder, ignore_errors=True)
    flags = ["--worker-reconnect-grace-seconds", "1"]
    async with LocalCluster(folder, flags=flags) as cluster, Client(cluster.urls) as client:
        demo = Demo(story, cluster, client)
        anna, _ = await demo.start_workers()
        await demo.immediate()
        await demo.delayed()
        await demo.failing()
        await demo.start_schedules()
        await demo.lose_worker(anna)
        old_leader = await demo.lose_leader()
        await demo.rejoin(old_leader)
        await demo.account()
    print()
    if story.failed:
        print(f"DEMO FAILED: {len(story.failed)} checks: " + "; ".join(story.failed))
        print(f"logs of all processes: {folder.resolve()}")
        return 1
    print("Every check held: nothing was lost, nothing ran twice.")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(asyncio.run(run(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)))
