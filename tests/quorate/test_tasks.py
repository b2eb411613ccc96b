"""Tasks without any network: signatures, payload types, plain calls, the test kit."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from quorate import Context, PayloadInvalid, Scheduler, TaskDefinitionError, current
from quorate.durations import to_seconds
from quorate.testing import ContextStub, run_task


class Struct(msgspec.Struct):
    number: int


@dataclasses.dataclass
class Data:
    number: int


class Typed(TypedDict):
    number: int


class Model(pydantic.BaseModel):
    number: int = pydantic.Field(gt=0)


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler("http://127.0.0.1:1")


@pytest.mark.parametrize("kind", [Struct, Data, Typed, Model, dict[str, int]])
async def test_payload_types_are_read_and_checked(kind: Any, scheduler: Scheduler) -> None:
    def take(payload: Any) -> str:
        return type(payload).__name__

    take.__annotations__["payload"] = kind
    task = scheduler.task(name="take")(take)
    expected = dict if kind in (Typed, dict[str, int]) else kind
    assert await run_task(task, {"number": 3}) == expected.__name__
    with pytest.raises(PayloadInvalid, match=r"\$\.number|\$\[\.\.\.\]"):
        await run_task(task, {"number": "three"})


async def test_pydantic_results_and_payloads_pass_through_json(scheduler: Scheduler) -> None:
    @scheduler.task()
    async def grow(model: Model) -> Model:
        return Model(number=model.number + 1)

    assert await run_task(grow, Model(number=1)) == Model(number=2)
    with pytest.raises(PayloadInvalid, match="greater than 0"):
        await run_task(grow, {"number": 0})


async def test_several_parameters_are_the_fields_of_the_payload(scheduler: Scheduler) -> None:
    @scheduler.task()
    async def add(a: int, b: int = 5, *, ctx: Context) -> int:
        return a + b

    assert await run_task(add, {"a": 1, "b": 2}) == 3
    assert await run_task(add, {"a": 1}) == 6
    with pytest.raises(PayloadInvalid, match="unknown field `c`"):
        await run_task(add, {"a": 1, "c": 2})
    with pytest.raises(PayloadInvalid, match=r"Expected `int`, got `str` - at `\$\.b`"):
        await run_task(add, {"a": 1, "b": "x"})


async def test_a_task_without_parameters_refuses_a_payload(scheduler: Scheduler) -> None:
    @scheduler.task()
    async def nothing() -> str:
        return "ok"

    assert await run_task(nothing) == "ok"
    with pytest.raises(PayloadInvalid):
        await run_task(nothing, 3)


async def test_the_context_comes_by_annotation_or_by_name(scheduler: Scheduler) -> None:
    @scheduler.task()
    async def by_type(where: Context) -> int:
        return where.attempt

    @scheduler.task()
    def by_name(text: str, ctx) -> str:  # type: ignore[no-untyped-def]
        assert current() is ctx
        ctx.progress(0.5, "half")
        ctx.log("line")
        return f"{text}{ctx.attempt}"

    stub = ContextStub(attempt=4)
    assert await run_task(by_type, context=stub) == 4
    assert await run_task(by_name, "x", context=stub) == "x4"
    assert (stub.reports, stub.lines, stub.log_text()) == ([(0.5, "half")], ["line"], "line")


async def test_a_plain_call_runs_the_function(scheduler: Scheduler) -> None:
    @scheduler.task()
    def double(number: int, ctx: Context) -> int:
        ctx.progress(1.0)
        return number * 2

    @scheduler.task()
    async def triple(number: int) -> int:
        return number * 3

    assert double(4) == 8
    assert double(4, ContextStub()) == 8
    assert await triple(number=4) == 12
    with pytest.raises(LookupError):
        current()


async def test_a_stub_can_be_cancelled(scheduler: Scheduler) -> None:
    @scheduler.task()
    async def wait(ctx: Context) -> str:
        await ctx.wait_cancelled()
        return "stopped"

    stub = ContextStub()
    running = asyncio.ensure_future(run_task(wait, context=stub))
    await asyncio.sleep(0)
    stub.cancel()
    assert await running == "stopped"


def test_definitions_are_checked_when_they_are_made(scheduler: Scheduler) -> None:
    async def one() -> None: ...

    scheduler.task()(one)
    with pytest.raises(TaskDefinitionError, match="two tasks are named 'one'"):
        scheduler.task()(one)
    with pytest.raises(TaskDefinitionError, match="cannot be a thread"):
        scheduler.task(name="two", kind="thread")(one)
    with pytest.raises(TaskDefinitionError, match=r"above @app\.task"):
        scheduler.cron("* * * * *")(one)  # type: ignore[arg-type]

    def unreadable(payload: threading_lock) -> None: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(TaskDefinitionError, match="cannot resolve"):
        scheduler.task()(unreadable).signature()

    def splat(*payload: int) -> None: ...

    with pytest.raises(TaskDefinitionError, match="cannot be filled"):
        scheduler.task()(splat).signature()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(3, 3), (1.5, 1.5), ("90", 90), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("2d", 172800)],
)
def test_durations(value: Any, seconds: float) -> None:
    assert to_seconds(value) == pytest.approx(seconds)
    assert to_seconds(timedelta(seconds=seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [-1, "soon", "5 parsecs", float("inf"), float("nan"), True, "-3"])
def test_nonsense_is_no_duration(value: Any) -> None:
    with pytest.raises(ValueError, match="duration"):
        to_seconds(value)
