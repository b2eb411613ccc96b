"""The slots by themselves: jobs that share an asyncio task do not notice it."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import pytest
from fake_cluster import unpack

from quorate import Context, Scheduler, current
from quorate.executors import Tools, executors_for
from quorate.worker import runner as runner_module
from quorate.worker.frames import Assignment, Like
from quorate.worker.outbox import Outbox
from quorate.worker.runner import Runner

SLOTS = 100


class Slots:
    """A runner without a link, and what it has to say."""

    def __init__(self, app: Scheduler) -> None:
        self.outbox = Outbox()
        self.executors = executors_for(app.tasks.values(), Tools(SLOTS))
        self.runner = Runner(self.executors, self.outbox, SLOTS)

    def start(self, name: str, payloads: Iterable[int] = range(3)) -> None:
        jobs = [Assignment(n + 1, 1, name, payload=str(n).encode()) for n in payloads]
        self.runner.start(jobs)

    async def results(self) -> list[Any]:
        """Once nothing runs: (kind, job id, output or error type), in the order they ended."""
        await self.runner.wait_idle()
        said = [unpack(frame) for frame in self.outbox.frames()]
        ended = [frame for frame in said if frame[0] in ("done", "failed", "released")]
        return [(frame[0], *item[:1], *item[2:3]) for frame in ended for item in frame[2]]


@pytest.fixture
def app() -> Scheduler:
    return Scheduler()


def done(*outputs: object) -> list[Any]:
    return [("done", n + 1, str(output).encode()) for n, output in enumerate(outputs)]


async def test_jobs_that_do_not_wait_share_a_task(
    app: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "SLICE_SECONDS", 60.0)
    tasks = set()

    @app.task()
    async def quick(number: int) -> int:
        tasks.add(asyncio.current_task())
        return number

    slots = Slots(app)
    slots.start("quick", range(50))
    assert await slots.results() == done(*range(50))
    assert len(tasks) == 1
    assert slots.runner.finished_count == 50


async def test_jobs_that_wait_have_tasks_of_their_own_and_do_not_hold_up_each_other(
    app: Scheduler,
) -> None:
    last_came = asyncio.Event()
    tasks = set()

    @app.task()
    async def waits(number: int) -> None:
        tasks.add(asyncio.current_task())
        if number == 49:
            last_came.set()
        await last_came.wait()
        tasks.add(asyncio.current_task())

    slots = Slots(app)
    slots.start("waits", range(50))
    assert len(await slots.results()) == 50
    # The last one did not wait, but had its task already.
    assert len(tasks) == 50
    assert slots.executors["waits"].waits


async def test_a_job_that_waits_now_and_then_holds_up_nobody(app: Scheduler) -> None:
    gate, order = asyncio.Event(), []

    @app.task()
    async def sometimes(number: int) -> int:
        if number == 1:
            await gate.wait()
        order.append(number)
        if number == 4:
            gate.set()
        return number

    slots = Slots(app)
    slots.start("sometimes", range(5))
    ended = await slots.results()
    assert order == [0, 2, 3, 4, 1]
    assert sorted(ended) == done(*range(5))


async def test_a_context_variable_ends_with_its_job(app: Scheduler) -> None:
    mine: ContextVar[object] = ContextVar("mine", default="clean")

    class Incomparable:
        def __eq__(self, other: object) -> bool:
            raise ValueError("neither equal nor different")

        __hash__ = None  # type: ignore[assignment]

    @app.task()
    async def leaky(number: int) -> str:
        before = mine.get()
        mine.set([number] if number % 2 else Incomparable())
        return str(before)

    mine.set("of the worker")
    slots = Slots(app)
    slots.start("leaky", range(6))
    outputs = [output for _, _, output in await slots.results()]
    assert outputs == [b'"of the worker"'] * 6


async def test_a_cancellation_that_a_job_left_behind_hits_no_other(app: Scheduler) -> None:
    @app.task()
    async def suicidal(number: int) -> int:
        task = asyncio.current_task()
        assert task is not None
        if number % 2:
            await asyncio.sleep(0)  # a cancellation would arrive here
        else:
            task.cancel()
        return number

    slots = Slots(app)
    slots.start("suicidal", range(6))
    assert sorted(await slots.results()) == done(*range(6))


async def test_timeouts_and_task_groups_work_in_a_shared_task(app: Scheduler) -> None:
    @app.task()
    async def busy(number: int) -> int:
        async with asyncio.timeout(60):
            if number % 10:
                return number
            async with asyncio.TaskGroup() as group:
                child = group.create_task(asyncio.sleep(0, number))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        return child.result()

    slots = Slots(app)
    slots.start("busy", range(30))
    assert sorted(await slots.results()) == sorted(done(*range(30)))


async def test_others_get_their_turn_between_slices(
    app: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "SLICE_SECONDS", -1.0)
    turns: list[object] = []

    @app.task()
    async def quick(number: int) -> None:
        turns.append(number)
        asyncio.get_running_loop().call_soon(turns.append, "other")

    slots = Slots(app)
    slots.start("quick", range(3))
    await slots.results()
    assert turns.index("other") < turns.index(2)


async def test_what_is_queued_when_the_worker_aborts_never_starts(app: Scheduler) -> None:
    started, ended = [], asyncio.Event()

    @app.task()
    async def endless(number: int) -> None:
        started.append(number)
        assert len(slots.runner.abort()) == 2  # its own task and the spare one
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    slots = Slots(app)
    slots.start("endless", range(3))
    await ended.wait()
    await asyncio.sleep(0)
    assert started == [0]


async def test_a_queued_job_that_is_cancelled_never_starts(app: Scheduler) -> None:
    started = []

    @app.task()
    async def record(number: int) -> None:
        started.append(number)

    slots = Slots(app)
    slots.start("record", range(3))
    slots.runner.cancel([(2, 1)])
    assert [job_id for _, job_id, _ in await slots.results()] == [1, 3]
    assert started == [0, 2]


async def test_a_job_of_a_shared_task_is_timed_out_alone(app: Scheduler) -> None:
    @app.task()
    async def first_waits(number: int) -> int:
        if number == 0:
            await asyncio.Event().wait()
        return number

    slots = Slots(app)
    jobs = [Assignment(n + 1, 1, "first_waits", payload=str(n).encode()) for n in range(3)]
    jobs[0].timeout_ms = 1
    slots.runner.start(jobs)
    ended = await slots.results()
    assert [item for item in ended if item[0] == "done"] == [("done", 2, b"1"), ("done", 3, b"2")]
    assert [item for item in ended if item[0] != "done"] == [("failed", 1, "timeout")]


async def test_what_a_job_leaves_in_its_variables_is_freed_with_it(app: Scheduler) -> None:
    class Large: ...

    kept: ContextVar[Large] = ContextVar("kept")
    alive: list[weakref.ref[Large]] = []

    @app.task()
    async def keep(number: int) -> None:
        large = Large()
        alive.append(weakref.ref(large))
        kept.set(large)
        await asyncio.sleep(0)

    slots = Slots(app)
    gc.disable()  # a cycle would wait for it
    try:
        slots.start("keep")
        await slots.results()
        await asyncio.sleep(0)
        assert [ref() for ref in alive] == [None] * 3
    finally:
        gc.enable()


async def test_like_jobs_start_as_rows_do(app: Scheduler) -> None:
    @app.task()
    async def tell(number: int, ctx: Context) -> list[Any]:
        await asyncio.sleep(0)
        return [number, ctx.name, ctx.queue, ctx.attempt, ctx.failures, ctx.max_retries]

    slots = Slots(app)
    slots.outbox.done((4, 1), None, None)  # not acknowledged yet
    jobs = Like(
        "tell", "mail", 0, 9, [1, 2, 2, 4], [1, 3, 3, 1], [b"1", b"2", b"2", b"4"], [0, 2, 2, 0]
    )
    slots.runner.start_like(jobs)
    slots.runner.start_like(Like("tell", "mail", 0, 9, [5], [1], [b"5"]))
    slots.runner.start_like(Like("unheard", "mail", 0, 9, [6], [1], [None]))
    ended = await slots.results()
    outputs = {job_id: json.loads(text) for kind, job_id, text in ended if kind == "done" and text}
    assert outputs == {
        1: [1, "tell", "mail", 1, 0, 9],
        2: [2, "tell", "mail", 3, 2, 9],
        5: [5, "tell", "mail", 1, 0, 9],
    }
    assert ("failed", 6, "unknown_task") in ended


async def test_a_job_has_one_context_wherever_it_is_asked_for(app: Scheduler) -> None:
    @app.task()
    async def ask(number: int, ctx: Context) -> bool:
        ctx.log("seen")
        seen = await asyncio.to_thread(current)
        return current() is ctx is seen and ctx.job_number == number + 1

    @app.task()
    async def deep(number: int) -> str:
        async def inner() -> str:
            return current().job_id

        return await asyncio.create_task(inner())

    slots = Slots(app)
    slots.start("ask")
    assert [output for _, _, output in await slots.results()] == [b"true"] * 3
    slots = Slots(app)
    slots.start("deep")
    assert [output for _, _, output in await slots.results()] == [b'"1"', b'"2"', b'"3"']
