"""One program in a session of its own, and the end of everything in it.

Not asyncio's subprocess: its `wait` returns only when every copy of the pipes is closed, so a
background child would keep a finished command running; and it reaps the leader before the group can
be signalled without the risk of hitting a reused id.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

TERM_SECONDS = 2.0  # between SIGTERM and SIGKILL
POLL_SECONDS = 0.02  # nothing tells when the last process of a group is gone
DRAIN_SECONDS = 1.0  # for output that is still in the pipes after the group is gone
READ_BYTES = 64 * 1024

Sink = Callable[[bytes], None]


class ProcessGroup:
    """A running program. `spawn`, then `exited` or `end`, then `close`."""

    def __init__(self, process: subprocess.Popen[bytes], sinks: Sequence[Sink]) -> None:
        self._process = process
        self.group = process.pid  # the leader of a new session leads its group
        loop = asyncio.get_running_loop()
        self._exit = loop.create_task(self._wait_exit())
        pipes = (process.stdout, process.stderr)
        self._pumps = [
            loop.create_task(_pump(pipe.fileno(), sink))
            for pipe, sink in zip(pipes, sinks, strict=True)
            if pipe is not None
        ]

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | None,
        stdin: str | None,
        sinks: tuple[Sink, Sink],
    ) -> ProcessGroup:
        """Starts `argv`; its two outputs go to `sinks`. OSError or ValueError if it cannot.

        Input goes through an unnamed file, so that a program which does not read cannot block us.
        """
        with tempfile.TemporaryFile() as source:
            if stdin is not None:
                source.write(stdin.encode())
                source.seek(0)
            process = subprocess.Popen(
                list(argv),
                stdin=source if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=dict(env),
                start_new_session=True,
            )
        return cls(process, sinks)

    async def _wait_exit(self) -> None:
        """Returns when the leader has exited; it is left unreaped, so its id stays ours."""
        try:
            descriptor = os.pidfd_open(self._process.pid)
        except (AttributeError, OSError):  # no Linux, or an old one
            while not self._exited_by_look():  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(POLL_SECONDS)
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(descriptor, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    def _exited_by_look(self) -> bool:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, options) is not None

    async def exited(self) -> None:
        """Returns when the program has ended; others of its group may still run."""
        await asyncio.shield(self._exit)

    async def end(self) -> int:
        """Ends every process of the group and gives the exit code of the program.

        SIGTERM first, SIGKILL after TERM_SECONDS. Processes that have opened a session of their
        own are no longer in the group.
        """
        loop = asyncio.get_running_loop()
        kill_at = loop.time() + TERM_SECONDS
        signal_group(self.group, signal.SIGTERM)
        await asyncio.wait((self._exit,), timeout=TERM_SECONDS)
        if self._exit.done():
            self._process.wait()
            await self._wait_empty(kill_at)
        signal_group(self.group, signal.SIGKILL)
        await self._exit
        return self._process.wait()

    async def _wait_empty(self, until: float) -> None:
        """Returns when the group has no process left, at the latest at `until`."""
        loop = asyncio.get_running_loop()
        while loop.time() < until and signal_group(self.group, 0):  # noqa: ASYNC110 - no event
            await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        """Reads what is left in the pipes, not for ever: an escaped child may hold them open."""
        _, stuck = await asyncio.wait(self._pumps, timeout=DRAIN_SECONDS)
        for pump in stuck:
            pump.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


async def _pump(descriptor: int, sink: Sink) -> None:
    """Hands over what comes out of a pipe until its last writer is gone."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            with suppress(BlockingIOError):
                chunk = os.read(descriptor, READ_BYTES)
                if not chunk:
                    return
                sink(chunk)
    finally:
        loop.remove_reader(descriptor)


def signal_group(group: int, number: int) -> bool:
    """False when the group has no process left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # a member changed its user; nothing more can be done about it
        return True
    return True
