"""Runs assignments in slots and turns every end of a job into exactly one result.

Jobs are run by asyncio tasks, so that `asyncio.timeout`, task groups and aiohttp find the current
task they need. A function that is known to wait gets a task for each of its jobs. One that has
never waited is not worth that: its jobs share a task, one after the other, until one waits after
all or leaves something behind. Timeouts are one sweep over what runs, not a timer per job. Knows no
network.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Context as Variables
from contextvars import copy_context
from itertools import repeat

from .. import payloads
from ..context import CURRENT, Context
from ..errors import NonRetryable, PayloadInvalid
from ..executors import Executor
from .frames import Assignment, Key, Like
from .outbox import Outbox
from .running import Kind, Running

Row = tuple[int, int, bytes | None, int]  # job_id, attempt, payload, failures

logger = logging.getLogger("quorate.worker")

SLICE_SECONDS = 0.005  # of jobs that do not wait; then results and heartbeats get their turn
SWEEP_SECONDS = 0.05  # precision of timeouts
COOPERATIVE_SECONDS = 2.0  # for a job that waits for its cancellation to end by itself
STUBBORN_SECONDS = 5.0  # after this long a stop that is not obeyed is reported anyway
BLOCKED_SECONDS = 1.0
OUTPUT_BYTES_MAX = 1024 * 1024
MESSAGE_CHARS_MAX = 2000
TRACEBACK_FRAMES = 6

# Why a job was told to stop; each has its own end.
CANCELLED, TIMEOUT, RELEASED, STALE = "cancelled", "timeout", "released", "stale"
STOPPED = "stopped"  # another run waits until this one has really ended: nothing is said before


class Runner:
    """The slots of one worker. It is the port of every Context it makes."""

    def __init__(self, executors: Mapping[str, Executor], outbox: Outbox, slots: int) -> None:
        self.slots = slots
        self.worker_id = ""
        self.shutdown_requested = False
        self.accepting = True
        self.running: dict[Key, Running] = {}
        self.finished_count = 0
        self._stopping: dict[Key, Running] = {}  # what was told to stop and has not ended
        self._next_stop_at = math.inf  # no timeout ends before
        self._executors = executors
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._variables = copy_context()  # what every job finds, whatever others have set
        self._queue: deque[Running] = deque()
        self._spare: asyncio.Task[None] | None = None  # takes from the queue when its turn comes
        self._sweep_due = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        self._changed: asyncio.Event | None = None

    # -- taking work ---------------------------------------------------------------------------

    @property
    def free_slots(self) -> int:
        """How many more jobs may come."""
        return max(0, self.slots - len(self.running)) if self.accepting else 0

    def start(self, jobs: Sequence[Assignment]) -> None:
        """Starts every job; one that is here already is ignored and its credit returned."""
        for job in jobs:
            row = (job.job_id, job.attempt, job.payload, job.failures)
            self._queue_up(job.name, job.queue, job.timeout_ms, job.max_retries, (row,))
        self._set_off()

    def start_like(self, jobs: Like) -> None:
        """The same for jobs of one kind."""
        rows = zip(
            jobs.job_ids,
            jobs.attempts,
            jobs.payloads,
            jobs.failures or repeat(0, len(jobs.job_ids)),
            strict=True,
        )
        self._queue_up(jobs.name, jobs.queue, jobs.timeout_ms, jobs.max_retries, rows)
        self._set_off()

    def _queue_up(
        self, name: str, queue: str, timeout_ms: int, max_retries: int, rows: Iterable[Row]
    ) -> None:
        executor, running, held = self._executors.get(name), self.running, self._outbox.held
        kind = None
        if executor is not None:
            kind = Kind(name, queue, timeout_ms, max_retries, executor)
        # On the loop's clock; the wall clock's deadline is in the timeout already.
        stop_at = self._loop.time() + timeout_ms / 1000 if timeout_ms else 0.0
        self._next_stop_at = min(self._next_stop_at, stop_at or math.inf)
        for job_id, attempt, payload, failures in rows:
            key = (job_id, attempt)
            if key in running or key in held:
                self._outbox.credit(1)
            elif kind is None:
                self._refuse_unknown(key, name)
            else:
                run = Running(key, kind, payload or b"", failures, stop_at, self)
                running[key] = run
                if kind.executor.waits:
                    self._run_alone(run)
                else:
                    self._queue.append(run)

    def _set_off(self) -> None:
        if self._queue and self._spare is None:
            self._spare = self._new_spare()
        if self._sweeper is None and self.running:
            self._sweep_due = self._loop.time() + SWEEP_SECONDS
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _refuse_unknown(self, key: Key, name: str) -> None:
        known = ", ".join(sorted(self._executors))
        message = f"unknown task {name!r}; this worker knows: {known}"
        self._outbox.failed(key, "unknown_task", message[:MESSAGE_CHARS_MAX], False, None)
        if self.accepting:
            self._outbox.credit(1)

    # -- running -------------------------------------------------------------------------------

    def _run_alone(self, run: Running) -> None:
        variables, get_context = self._variables.copy(), run.context
        variables.run(CURRENT.set, get_context)
        run.task = self._loop.create_task(self._run(run, get_context), context=variables)

    def _new_spare(self) -> asyncio.Task[None]:
        variables = self._variables.copy()
        return self._loop.create_task(self._run_queued(variables), context=variables)

    async def _run_queued(self, variables: Variables) -> None:
        """Runs queued jobs until one of them has waited, or has left something behind.

        While anything is queued a spare task is scheduled, so this one may end at any time."""
        self._spare = None
        task, queue = asyncio.current_task(self._loop), self._queue
        assert task is not None
        slice_end = self._loop.time() + SLICE_SECONDS
        while queue:
            run = queue.popleft()
            if run.kind.executor.waits:
                self._run_alone(run)
                continue
            if queue and self._spare is None:
                self._spare = self._new_spare()
            spare = self._spare
            run.task = task
            get_context = run.context
            CURRENT.set(get_context)
            before = variables.copy()
            await self._run(run, get_context)
            if spare is None:
                return  # it was the last one, and may have waited
            if spare is not self._spare:
                run.kind.executor.waits = True
                return
            if self._loop.time() > slice_end or not _as_before(task, variables, before):
                return

    async def _run(self, run: Running, get_context: Callable[[], Context]) -> None:
        run.started = True
        output: bytes | None = None
        error: BaseException | None = None
        try:
            if run.stop_reason is not None:  # told to stop before the first step
                raise asyncio.CancelledError
            value = await run.kind.executor.start(run.payload, get_context)
            if value is not None:
                output = _encoded(value)
        except GeneratorExit:
            raise
        except BaseException as caught:  # sys.exit() in a task must not end the worker
            error = caught
        if error is None and run.stop_reason is None:
            self._outbox.done(run.key, output, run.log_text())
        elif not run.settled:
            self._settle(run, output, error)
        del self.running[run.key]
        if run.stop_reason is not None:
            del self._stopping[run.key]
        run.task = None  # which holds the variables, and they the run
        self.finished_count += 1
        if self.accepting:
            self._outbox.credit(1)
        if self._changed is not None:
            self._changed.set()

    def _settle(self, run: Running, output: bytes | None, error: BaseException | None) -> None:
        """Gives the one result of an attempt, by why it was stopped and how it ended."""
        run.settled = True
        reason = run.stop_reason
        if reason in (CANCELLED, STALE):
            return
        if reason == TIMEOUT:
            self._fail_timeout(run)
        elif error is None:
            self._outbox.done(run.key, output, run.log_text())
        elif reason == STOPPED and isinstance(error, asyncio.CancelledError):
            message = "stopped, as the cluster asked"
            self._outbox.failed(run.key, "cancelled", message, False, run.log_text())
        elif reason == RELEASED and isinstance(error, asyncio.CancelledError):
            self._outbox.released(run.key)
        else:
            self._fail(run, error)

    def _fail(self, run: Running, error: BaseException) -> None:
        retryable = not isinstance(error, (NonRetryable, *run.kind.executor.non_retryable))
        error_type = type(error).__name__
        if isinstance(error, asyncio.CancelledError):
            error_type = "cancelled"  # by itself: nobody asked this job to stop
        # Of the built-in tasks the message says it all; where they raise it helps nobody.
        if not isinstance(error, PayloadInvalid) and not _is_built_in(error):
            run.context().keep_log(_short_traceback(error))
        message = _text(error) or error_type
        self._outbox.failed(
            run.key,
            error_type,
            message[:MESSAGE_CHARS_MAX],
            retryable,
            run.log_text(),
        )

    def _fail_timeout(self, run: Running) -> None:
        message = f"ran longer than its timeout of {run.kind.timeout_ms / 1000:g} s"
        self._outbox.failed(run.key, "timeout", message, True, run.log_text())

    # -- stopping ------------------------------------------------------------------------------

    def cancel(self, keys: Iterable[Sequence[int]]) -> None:
        """The cluster cancelled these: stop them, no result is wanted."""
        self._stop_keys(keys, CANCELLED)

    def stop(self, keys: Iterable[Sequence[int]]) -> None:
        """The cluster wants these to end and to say how; a result counts if there is one."""
        self._stop_keys(keys, STOPPED)

    def drop(self, keys: Iterable[Sequence[int]]) -> None:
        """These belong to another worker by now: stop them, drop their results."""
        self._stop_keys(keys, STALE)

    def release_all(self) -> None:
        """Stops everything that runs and hands it back."""
        for run in list(self.running.values()):
            self._stop(run, RELEASED)

    def _stop_keys(self, keys: Iterable[Sequence[int]], reason: str) -> None:
        for job_id, attempt in keys:
            run = self.running.get((job_id, attempt))
            if run is not None:
                self._stop(run, reason)

    def _stop(self, run: Running, reason: str) -> None:
        if run.stop_reason is not None:
            # The first reason decides the result, unless no result is wanted any more.
            if reason in (CANCELLED, STALE):
                run.stop_reason = reason
            return
        run.stop_reason = reason
        run.stop_since = self._loop.time()
        self._stopping[run.key] = run
        cooperative = run.context().request_stop()
        if not run.kind.executor.interruptible:
            if not run.settled and reason != STOPPED:
                self._abandon(run)
        elif not cooperative:
            self._interrupt(run)

    def _interrupt(self, run: Running) -> None:
        """Cancels the task, once: a second cancellation would cut its cleaning up short.

        Not before its first step: a coroutine that is cancelled then never runs at all, so it
        could not free its slot."""
        if run.task is not None and run.started and not run.interrupted:
            run.interrupted = True
            run.task.cancel()

    def _abandon(self, run: Running) -> None:
        """Reports the end of work that cannot be interrupted; it keeps its slot until it ends."""
        if run.stop_reason == RELEASED:
            run.settled = True
            self._outbox.released(run.key)
        else:
            self._settle(run, None, asyncio.CancelledError())

    def _sweep(self) -> None:
        """Stops what is out of time; insists with what does not obey."""
        now = self._loop.time()
        self._warn_if_blocked(now)
        for run in list(self._stopping.values()):
            if now - run.stop_since >= STUBBORN_SECONDS:
                self._insist(run, now)
            elif run.kind.executor.interruptible and now - run.stop_since >= COOPERATIVE_SECONDS:
                self._interrupt(run)
        if now >= self._next_stop_at:
            self._stop_timed_out(now)
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self.running else None

    def _stop_timed_out(self, now: float) -> None:
        self._next_stop_at = math.inf
        for run in list(self.running.values()):
            if not run.stop_at or run.stop_reason is not None:
                continue
            if now >= run.stop_at:
                self._stop(run, TIMEOUT)
            else:
                self._next_stop_at = min(self._next_stop_at, run.stop_at)

    def _warn_if_blocked(self, now: float) -> None:
        """A blocked loop stops heartbeats, and a worker without heartbeats loses its jobs."""
        late = now - self._sweep_due
        if late > BLOCKED_SECONDS:
            logger.warning(
                "the event loop was blocked for %.1f s by one of: %s. Blocking code belongs in a "
                "plain function (def), which runs in a thread",
                late,
                ", ".join(sorted({run.kind.name for run in self.running.values()})),
            )
        self._sweep_due = now + SWEEP_SECONDS

    def _insist(self, run: Running, now: float) -> None:
        run.stop_since = now
        if not run.settled:
            logger.warning("job %s (%s) does not stop", run.key[0], run.kind.name)
            if run.stop_reason != STOPPED:
                self._abandon(run)
        if run.kind.executor.interruptible and run.task is not None:
            run.task.cancel()

    # -- leaving -------------------------------------------------------------------------------

    def stop_accepting(self) -> None:
        """No more credit from now on; running jobs can see that the worker wants to stop."""
        self.accepting = False
        self.shutdown_requested = True

    def abort(self) -> list[asyncio.Task[None]]:
        """Cancels everything without any result; the tasks that have to end."""
        self._queue.clear()
        tasks = [run.task for run in self.running.values() if run.task is not None]
        if self._spare is not None:
            tasks.append(self._spare)
        for task in tasks:
            task.cancel()
        return tasks

    async def wait_idle(self) -> None:
        """Returns once nothing runs."""
        while self.running:
            await self.wait_change()

    async def wait_change(self) -> None:
        """Returns when the next job ends."""
        if self._changed is None or self._changed.is_set():
            self._changed = asyncio.Event()
        await self._changed.wait()

    # -- the port of contexts ------------------------------------------------------------------

    def report_progress(
        self, context: Context, fraction: float | None, message: str | None
    ) -> None:
        """Queues a progress report; from any thread."""
        key = (context.job_number, context.attempt)
        self._on_loop(lambda: self._outbox.progress(key, fraction, message))

    def report_log(self, context: Context, text: str) -> None:
        """Queues a live log line; from any thread."""
        key = (context.job_number, context.attempt)
        self._on_loop(lambda: self._outbox.log(key, text))

    def _on_loop(self, call: Callable[[], None]) -> None:
        if threading.get_ident() == self._thread_id:
            call()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)


def _as_before(task: asyncio.Task[None], variables: Variables, before: Variables) -> bool:
    """Whether the next job finds the task as this one did: not about to be cancelled, and with
    the same context variables."""
    if task.cancelling():
        return False
    try:
        return variables == before
    except Exception:  # values of the user's that cannot be compared have been set
        return False


def _encoded(value: object) -> bytes:
    output = payloads.encode(value)
    if len(output) > OUTPUT_BYTES_MAX:
        raise PayloadInvalid(
            f"the result has {len(output)} bytes of JSON; at most {OUTPUT_BYTES_MAX} are kept"
        )
    return output


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # a class of the user's whose __str__ fails
        return f"{type(error).__name__} (its text cannot be made: {broken!r})"


def _is_built_in(error: BaseException) -> bool:
    """Whether a built-in task raised it, not a function of the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return str(name).startswith("quorate.executors.")


def _short_traceback(error: BaseException) -> str:
    """The end of the traceback, without the frames of this module."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace, limit=-TRACEBACK_FRAMES)
    return "".join(lines).rstrip()
