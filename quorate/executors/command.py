"""The built-in task `command`: a shell line or program in its own process group.

Whatever way the job ends, nothing of its group is left behind. It is no sandbox: the command runs
with the rights of the worker. A child that opens a session of its own leaves the group and is not
followed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import msgspec

from ..context import LOG_BYTES_MAX, Context, GetContext
from ..errors import NonRetryable
from .base import Executor, Tools, read_payload
from .process_group import ProcessGroup, signal_group

TAIL_BYTES_MAX = 8 * 1024  # per stream, in the output
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
    """The last bytes of one stream; its lines also go to the job's log."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept = bytearray()
        self._total = 0
        self._line = bytearray()  # begun, but not ended yet

    def add(self, chunk: bytes) -> None:
        self._total += len(chunk)
        self._kept += chunk
        if len(self._kept) > TAIL_BYTES_MAX:
            del self._kept[: len(self._kept) - TAIL_BYTES_MAX]
        lines, end, rest = chunk.rpartition(b"\n")
        if end or len(self._line) > LOG_BYTES_MAX:
            self._log(self._line + lines)
            self._line.clear()
        self._line += rest

    def close(self) -> None:
        if self._line:
            self._log(self._line)
            self._line.clear()

    def _log(self, text: bytes | bytearray) -> None:
        self._context.log(text[-LOG_BYTES_MAX:].decode(errors="replace"))

    def text(self) -> str:
        text = self._kept.decode(errors="replace")
        dropped = self._total - len(self._kept)
        return f"[{dropped} bytes dropped]\n{text}" if dropped else text


class Command(Executor):
    """Runs commands; remembers live process groups in the tools, for an abort."""

    def __init__(self, tools: Tools) -> None:
        self._groups = tools.process_groups
        self._lives: set[asyncio.Task[dict[str, Any]]] = set()

    async def start(self, payload: bytes, get_context: GetContext) -> dict[str, Any]:
        """Output: {"exit_code": 0, "stdout": tail, "stderr": tail}; CommandFailed otherwise."""
        asked: CommandPayload = read_payload(payload, _decoder, "command")
        stop = asyncio.Event()
        # The process lives in a task of its own that nobody cancels: a second cancellation while
        # the group is being ended must not leave it behind.
        life = asyncio.get_running_loop().create_task(self._live(asked, get_context(), stop))
        self._lives.add(life)
        life.add_done_callback(self._ended)
        try:
            return await asyncio.shield(life)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait((life,))
            raise

    def _ended(self, life: asyncio.Task[dict[str, Any]]) -> None:
        self._lives.discard(life)
        if not life.cancelled():
            life.exception()  # after a stop nobody asks for it

    async def _live(
        self, asked: CommandPayload, context: Context, stop: asyncio.Event
    ) -> dict[str, Any]:
        out, err = _Tail(context), _Tail(context)
        process = _spawn(asked, context, out, err)
        self._groups.add(process.group)
        loop = asyncio.get_running_loop()
        ended, told = loop.create_task(process.exited()), loop.create_task(stop.wait())
        await asyncio.wait((ended, told), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        told.cancel()
        exit_code = await process.end()  # also after a normal end: children may be left
        self._groups.discard(process.group)
        await process.close()
        out.close()
        err.close()
        if exit_code != 0:
            raise CommandFailed(_describe(exit_code, err.text()))
        return {"exit_code": exit_code, "stdout": out.text(), "stderr": err.text()}


def _spawn(asked: CommandPayload, context: Context, out: _Tail, err: _Tail) -> ProcessGroup:
    argv = [SHELL, "-c", asked.command] if isinstance(asked.command, str) else asked.command
    if not argv or not argv[0]:
        raise NonRetryable("the command is empty")
    if asked.cwd is not None and not Path(asked.cwd).is_dir():
        raise NonRetryable(f"the working directory {asked.cwd!r} does not exist")
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env |= {"QUORATE_JOB_ID": context.job_id, "QUORATE_ATTEMPT": str(context.attempt)}
    env |= asked.env
    try:
        return ProcessGroup.spawn(
            argv, env=env, cwd=asked.cwd, stdin=asked.stdin, sinks=(out.add, err.add)
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        raise NonRetryable(f"cannot start {argv[0]!r}: {error.strerror}") from error
    except ValueError as error:  # a NUL byte in an argument or variable
        raise NonRetryable(f"cannot start {argv[0]!r}: {error}") from error


def kill_groups(groups: set[int]) -> None:
    """SIGKILL for every group, for a worker that aborts."""
    for group in groups:
        signal_group(group, signal.SIGKILL)


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
