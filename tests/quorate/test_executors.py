"""The built-in tasks, run for real: processes, groups and HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from quorate import NonRetryable, PayloadInvalid
from quorate.executors import BUILT_IN, Tools
from quorate.executors.command import CommandFailed
from quorate.executors.http import HttpFailed, HttpRefused
from quorate.executors.simulate import SimulatedFailure
from quorate.testing import ContextStub

Run = Callable[..., Any]


@pytest.fixture
async def tools() -> AsyncIterator[Tools]:
    made = Tools(4)
    yield made
    await made.close()


def started(tools: Tools, name: str, payload: Any, context: ContextStub | None = None) -> Any:
    executor = BUILT_IN[name](tools)
    made = context or ContextStub("7", attempt=2)
    return executor.start(msgspec.json.encode(payload), lambda: made)


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet is dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def appears(path: Path) -> str:
    """Waits until a command under test has written `path`."""
    async with asyncio.timeout(60):
        while not path.exists() or not path.read_text().strip():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return path.read_text().strip()


async def test_command_gives_exit_code_and_both_streams(tools: Tools) -> None:
    context = ContextStub("7", attempt=2)
    output = await started(tools, "command", {"command": "echo out; echo err >&2"}, context)
    assert output == {"exit_code": 0, "stdout": "out\n", "stderr": "err\n"}
    assert sorted(context.lines) == ["err", "out"]


async def test_command_list_takes_stdin_cwd_and_a_clean_environment(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the worker")
    script = "cat; pwd; echo $SECRET $MINE $QUORATE_JOB_ID/$QUORATE_ATTEMPT"
    payload = {
        "command": ["/bin/sh", "-c", script],
        "stdin": "in\n",
        "cwd": str(tmp_path),
        "env": {"MINE": "given"},
    }
    output = await started(tools, "command", payload)
    assert output["stdout"].splitlines() == ["in", str(tmp_path), "given 7/2"]


async def test_command_failure_names_exit_code_and_last_line(tools: Tools) -> None:
    with pytest.raises(CommandFailed, match="ended with exit code 3: second"):
        await started(tools, "command", {"command": "echo first >&2; echo second >&2; exit 3"})
    with pytest.raises(CommandFailed, match="was killed by SIGKILL"):
        await started(tools, "command", {"command": "kill -9 $$"})


async def test_command_output_is_capped(tools: Tools) -> None:
    command = "i=0; while [ $i -lt 3000 ]; do echo line-$i; i=$((i+1)); done"
    output = await started(tools, "command", {"command": command})
    assert output["stdout"].startswith("[")
    assert output["stdout"].endswith("line-2999\n")
    assert len(output["stdout"]) < 9000


async def test_cancelled_command_leaves_no_process_of_its_group(
    tools: Tools, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    command = f"sleep 100 & echo $! > {pids}.tmp; mv {pids}.tmp {pids}; sleep 100"
    task = asyncio.ensure_future(started(tools, "command", {"command": command}))
    child = int(await appears(pids))
    (group,) = tools.process_groups
    assert alive(child)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not group_exists(group)
    assert not alive(child)
    assert tools.process_groups == set()


async def test_a_command_that_ignores_sigterm_is_killed(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quorate.executors.process_group.TERM_SECONDS", 0.2)
    ready = tmp_path / "ready"
    command = f"trap '' TERM; echo $$ > {ready}; while :; do sleep 0.05; done"
    task = asyncio.ensure_future(started(tools, "command", {"command": command}))
    pid = int(await appears(ready))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pid)


async def test_a_second_cancellation_still_ends_the_group(tools: Tools, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    command = f"trap 'sleep 0.3; exit' TERM; echo $$ > {ready}; while :; do sleep 0.05; done"
    task = asyncio.ensure_future(started(tools, "command", {"command": command}))
    pid = int(await appears(ready))
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(60):
        while tools.process_groups:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not alive(pid)


async def test_cancelling_while_the_process_is_being_spawned_leaves_nothing(tools: Tools) -> None:
    task = asyncio.ensure_future(started(tools, "command", {"command": "sleep 100"}))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tools.process_groups == set()


async def test_background_children_do_not_outlive_a_finished_command(
    tools: Tools, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    output = await started(tools, "command", {"command": f"sleep 100 & echo $! > {pids}"})
    assert output["exit_code"] == 0
    assert not alive(int(pids.read_text()))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "missing required field `command`"),
        ({"command": 3}, "Expected `str | array`, got `int`"),
        ({"command": "true", "shell": True}, "unknown field `shell`"),
    ],
)
async def test_command_payload_is_checked(tools: Tools, payload: Any, message: str) -> None:
    with pytest.raises(PayloadInvalid, match=message.replace("|", r"\|")):
        await started(tools, "command", payload)


@pytest.mark.parametrize(
    "payload",
    [
        {"command": ["/no/such/program"]},
        {"command": []},
        {"command": "true", "cwd": "/no/such/folder"},
        {"command": ["echo", "nul\0byte"]},
    ],
)
async def test_a_command_that_cannot_start_is_final(tools: Tools, payload: Any) -> None:
    with pytest.raises(NonRetryable):
        await started(tools, "command", payload)


async def test_abort_kills_every_group(tools: Tools, tmp_path: Path) -> None:
    from quorate.executors.command import kill_groups

    ready = tmp_path / "ready"
    command = f"trap '' TERM; echo $$ > {ready}; while :; do sleep 0.05; done"
    task = asyncio.ensure_future(started(tools, "command", {"command": command}))
    await appears(ready)
    kill_groups(tools.process_groups)
    with pytest.raises(CommandFailed, match=signal.SIGKILL.name):
        await task


async def test_simulate_fails_as_often_as_told(tools: Tools) -> None:
    output = await started(tools, "simulate", {"execution_time_ms": 1, "fail_rate": 0})
    assert output == {"execution_time_ms": 1}
    with pytest.raises(SimulatedFailure, match="simulated failure"):
        await started(tools, "simulate", {"fail_rate": 1})
    with pytest.raises(PayloadInvalid, match="fail_rate"):
        await started(tools, "simulate", {"fail_rate": 2})


@pytest.fixture
async def site() -> AsyncIterator[str]:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "method": request.method,
                "key": request.headers["Idempotency-Key"],
                "mine": request.headers.get("X-Mine"),
                "body": await request.text(),
            }
        )

    async def status(request: web.Request) -> web.Response:
        return web.Response(status=int(request.match_info["code"]), text="said so")

    app = web.Application()
    app.add_routes([web.route("*", "/echo", echo), web.get("/status/{code}", status)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_http_sends_the_request_with_its_fence(tools: Tools, site: str) -> None:
    payload = {"url": f"{site}/echo", "method": "post", "json": [1], "headers": {"X-Mine": "y"}}
    output = await started(tools, "http", payload)
    assert output["status"] == 200
    assert output["body"] == {"method": "POST", "key": "7-2", "mine": "y", "body": "[1]"}


@pytest.mark.parametrize(("code", "final"), [(404, True), (408, False), (429, False), (503, False)])
async def test_http_statuses_decide_about_retries(
    tools: Tools, site: str, code: int, final: bool
) -> None:
    with pytest.raises(HttpRefused if final else HttpFailed, match=f"answered {code}: said so"):
        await started(tools, "http", {"url": f"{site}/status/{code}"})
    expected = {"url": f"{site}/status/{code}", "expect_status": [code]}
    assert (await started(tools, "http", expected))["status"] == code


async def test_http_without_a_server_may_be_retried(tools: Tools) -> None:
    with pytest.raises(HttpFailed):
        await started(tools, "http", {"url": "http://127.0.0.1:1/"})
    with pytest.raises(PayloadInvalid, match="must start with http"):
        await started(tools, "http", {"url": "file:///etc/passwd"})
