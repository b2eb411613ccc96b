"""The built-in task `command`: a shell line or program in its own process group.

Whatever way the job ends, nothing of its group is left behind. It is no sandbox: the command runs
with the rights of the worker. A child that opens a session of its own leaves the group and is not
followed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..context import LOG_BYTES_MAX, Context
from ..errors import NonRetryable
from .base import Executor, Tools, read_payload

TERM_SECONDS = 2.0  # between SIGTERM and SIGKILL
GROUP_POLL_SECONDS = 0.02
DRAIN_SECONDS = 1.0  # for output that is still in the pipes after the group is gone
TAIL_BYTES_MAX = 8 * 1024  # per stream, in the output
READ_BYTES = 64 * 1024
SHELL = "/bin/sh"
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER")


class CommandFailed(Exception):
    """The command ended with another exit code than 0."""


class CommandPayload(msgspec.Struct, forbid_unknown_fields=True):
    """A shell line (string) or a program with arguments (list)."""

    command: str | list[str]
    env: dict[str, str] = {}
    cwd: str | None = None
    stdin: str | None = None


_decoder = msgspec.json.Decoder(CommandPayload)


class _Tail:
    """The last bytes of one stream; every line also goes to the job's log."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept = bytearray()
        self._total = 0

    def add(self, chunk: bytes) -> None:
        self._total += len(chunk)
        self._kept += chunk
        if len(self._kept) > TAIL_BYTES_MAX:
            del self._kept[: len(self._kept) - TAIL_BYTES_MAX]
        self._context.log(chunk[-LOG_BYTES_MAX:].decode(errors="replace").rstrip("\n"))

    def text(self) -> str:
        text = self._kept.decode(errors="replace")
        dropped = self._total - len(self._kept)
        return f"[{dropped} bytes dropped]\n{text}" if dropped else text


class Command(Executor):
    """Runs commands; remembers live process groups in the tools, for an abort."""

    def __init__(self, tools: Tools) -> None:
        self._groups = tools.process_groups

    async def start(self, payload: bytes, context: Context) -> dict[str, Any]:
        """Output: {"exit_code": 0, "stdout": tail, "stderr": tail}; CommandFailed otherwise."""
        asked: CommandPayload = read_payload(payload, _decoder, "command")
        process = await _spawn(asked, context)
        self._groups.add(process.pid)
        out, err = _Tail(context), _Tail(context)
        assert process.stdout is not None and process.stderr is not None
        pumps = [
            asyncio.ensure_future(_pump(process.stdout, out)),
            asyncio.ensure_future(_pump(process.stderr, err)),
            asyncio.ensure_future(_feed(process, asked.stdin)),
        ]
        try:
            exit_code = await process.wait()
        finally:
            # In a task of its own: a second cancellation must not leave the group alive.
            ending = asyncio.ensure_future(self._end(process, pumps))
            await asyncio.shield(ending)
        if exit_code != 0:
            raise CommandFailed(_describe(exit_code, err.text()))
        return {"exit_code": exit_code, "stdout": out.text(), "stderr": err.text()}

    async def _end(self, process: Process, pumps: Sequence[asyncio.Task[None]]) -> None:
        try:
            await end_group(process.pid)
            await process.wait()
        finally:
            self._groups.discard(process.pid)
        _, stuck = await asyncio.wait(pumps, timeout=DRAIN_SECONDS)
        for pump in stuck:  # an escaped child holds the pipe open
            pump.cancel()
        transport = getattr(process, "_transport", None)
        if transport is not None:
            transport.close()


async def _spawn(asked: CommandPayload, context: Context) -> Process:
    argv = [SHELL, "-c", asked.command] if isinstance(asked.command, str) else asked.command
    if not argv or not argv[0]:
        raise NonRetryable("the command is empty")
    if asked.cwd is not None and not Path(asked.cwd).is_dir():
        raise NonRetryable(f"the working directory {asked.cwd!r} does not exist")
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env |= {"QUORATE_JOB_ID": context.job_id, "QUORATE_ATTEMPT": str(context.attempt)}
    env |= asked.env
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=PIPE if asked.stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            cwd=asked.cwd,
            env=env,
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        raise NonRetryable(f"cannot start {argv[0]!r}: {error.strerror}") from error
    except ValueError as error:  # a NUL byte in an argument or variable
        raise NonRetryable(f"cannot start {argv[0]!r}: {error}") from error


async def _pump(stream: asyncio.StreamReader, tail: _Tail) -> None:
    while chunk := await stream.read(READ_BYTES):
        tail.add(chunk)


async def _feed(process: Process, text: str | None) -> None:
    if text is None or process.stdin is None:
        return
    try:
        process.stdin.write(text.encode())
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the command does not want its input; its exit code tells the rest
    finally:
        process.stdin.close()


async def end_group(group: int) -> None:
    """Ends every process of a group: SIGTERM, then SIGKILL after TERM_SECONDS."""
    if not _signal(group, signal.SIGTERM):
        return
    loop = asyncio.get_running_loop()
    kill_at = loop.time() + TERM_SECONDS
    while loop.time() < kill_at:
        await asyncio.sleep(GROUP_POLL_SECONDS)
        if not _signal(group, 0):
            return
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """False when the group has no process left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # a member changed its user; nothing more can be done about it
        return True
    return True


def kill_groups(groups: set[int]) -> None:
    """SIGKILL for every group, for a worker that aborts."""
    for group in groups:
        _signal(group, signal.SIGKILL)


def _describe(exit_code: int, stderr: str) -> str:
    if exit_code < 0:
        try:
            how = f"was killed by {signal.Signals(-exit_code).name}"
        except ValueError:
            how = f"was killed by signal {-exit_code}"
    else:
        how = f"ended with exit code {exit_code}"
    last = stderr.strip().rpartition("\n")[2][:300]
    return f"the command {how}: {last}" if last else f"the command {how}"
