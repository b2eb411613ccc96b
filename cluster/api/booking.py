"""What one worker reports, on its way into the log: in order, one command at a time.

Frames that arrive while a command is in flight share the next one; each gets its own answer.
Successes, which are nearly all, go without a task and a future of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from cluster.actors.completions import Report
from cluster.actors.desk import WorkerDesk
from cluster.actors.services import AttemptError, Overloaded
from cluster.api import frames
from cluster.api.frames import Completed, Failed, Released, Results

RESULTS_MERGED_MAX = 5_000  # items in one command
OVERLOAD_TRIES_MAX = 50
OVERLOAD_PAUSE_SECONDS = 0.1
OUTPUT_TOO_LARGE = "output_too_large"


class Booking:
    """The results of one connection. `items` counts those without an answer; `has_ended` means that
    no more are booked, as one could not be."""

    def __init__(
        self,
        desk: WorkerDesk,
        worker_id: int,
        output_max_bytes: int,
        put: Callable[[bytes], None],
        ended: Callable[[Exception], None],
    ) -> None:
        """`put` takes frames to the worker, `ended` is told once why results are not booked."""
        self.items = 0
        self.has_ended = False
        self._desk = desk
        self._worker_id = worker_id
        self._output_max_bytes = output_max_bytes
        self._put = put
        self._ended = ended
        # Empty ones are nothing, as many connections wait for long and a list for each that lives
        # that long is one more for the collector to look at.
        self._waiting: list[Results] | None = None
        self._taken: Sequence[Results] = ()  # in flight
        self._tries_left = 0
        self._retry: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._moved: asyncio.Future[None] | None = None

    def add(self, frame: Results) -> None:
        if self.has_ended:
            return
        self.items += len(frame.ids)
        if not self._taken:
            self._begin((frame,))
        elif self._waiting is None:
            self._waiting = [frame]
        else:
            self._waiting.append(frame)

    async def moved(self) -> None:
        """Until some more were booked, or none will be."""
        if self._moved is None:
            self._moved = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._moved)

    def stop(self) -> None:
        """Nobody is told any more; what is in flight may be booked or not."""
        self.has_ended = True
        self._waiting = None
        if self._retry is not None:
            self._retry.cancel()
        if self._task is not None:
            self._task.cancel()

    # -- one command after the other -------------------------------------------------------------

    def _next(self, waiting: list[Results]) -> None:
        """The oldest frame and those of its kind that follow, up to a bound."""
        kind, items, count = type(waiting[0]), 0, 0
        for frame in waiting:
            if type(frame) is not kind or (count and items >= RESULTS_MERGED_MAX):
                break
            items += len(frame.ids)
            count += 1
        self._waiting = waiting[count:] or None
        self._begin(waiting[:count])

    def _begin(self, frames_taken: Sequence[Results]) -> None:
        self._taken = frames_taken
        self._tries_left = OVERLOAD_TRIES_MAX
        self._propose()

    def _propose(self) -> None:
        self._tries_left -= 1
        done = _joined(self._taken)
        if done is None or self._is_too_large(done):
            self._task = asyncio.create_task(self._by_hand(self._taken))
            return
        try:
            self._desk.completions.add(self._report(done))
        except Exception as error:
            self.failed(error)

    def _report(self, done: Completed) -> Report:
        logs = done.logs and [frames.cut_log(text) for text in done.logs]
        return Report(self._worker_id, done.job_ids, done.attempts, done.outputs, logs, self)

    def booked(self, refused: list[int]) -> None:
        """All that is in flight, but for these."""
        taken, self._taken = self._taken, ()
        if self.has_ended:
            return
        stale = set(refused)
        for frame in taken:
            ids = frame.ids
            self.items -= len(ids)
            mine = [job_id for job_id in ids if job_id in stale] if stale else []
            self._put(frames.ack(frame.seq, mine))
        self._tell_moved()
        if self._waiting is not None:
            self._next(self._waiting)

    def failed(self, error: Exception) -> None:
        """Tried again if nothing was proposed for want of room."""
        if self.has_ended:
            return
        if isinstance(error, Overloaded) and self._tries_left > 0:
            loop = asyncio.get_running_loop()
            self._retry = loop.call_later(OVERLOAD_PAUSE_SECONDS, self._propose)
            return
        self.has_ended = True
        self._tell_moved()
        self._ended(error)

    def _tell_moved(self) -> None:
        moved, self._moved = self._moved, None
        if moved is not None and not moved.done():
            moved.set_result(None)

    # -- what is rare ----------------------------------------------------------------------------

    def _is_too_large(self, done: Completed) -> bool:
        sizes = map(len, filter(None, done.outputs or ()))
        return max(sizes, default=0) > self._output_max_bytes

    async def _by_hand(self, taken: Sequence[Results]) -> None:
        try:
            refused = await self._commit(taken)
        except Exception as error:  # whatever it is, the worker waits for an answer
            self.failed(error)
        else:
            self.booked(refused)

    async def _commit(self, taken: Sequence[Results]) -> list[int]:
        """One command for frames of one kind. Returns the refused ids."""
        desk, worker_id = self._desk, self._worker_id
        errors: list[AttemptError] = []
        held: list[frames.Held] = []
        for frame in taken:
            match frame:
                case Failed():
                    errors += [item.error() for item in frame.items]
                case Released():
                    held += frame.items
        if errors:
            return await desk.fail(worker_id, errors)
        if held:
            return await desk.release(
                worker_id, [h.job_id for h in held], [h.attempt for h in held]
            )
        done = _joined(taken)
        return await self._commit_large(done) if done is not None else []

    async def _commit_large(self, done: Completed) -> list[int]:
        """An output beyond the limit fails its job for good."""
        maximum = self._output_max_bytes
        sizes = [len(output or b"") for output in done.outputs or ()]
        large = done.only([i for i, size in enumerate(sizes) if size > maximum])
        rest = self._report(done.only([i for i, size in enumerate(sizes) if size <= maximum]))
        refused = await self._desk.fail(self._worker_id, _too_large(large, maximum))
        if not rest.job_ids:
            return refused
        return refused + await self._desk.complete(
            rest.worker_id, rest.job_ids, rest.attempts, rest.outputs, rest.logs
        )


def _joined(taken: Sequence[Results]) -> Completed | None:
    """Successes as one; None if there are none, or other results."""
    done = [frame for frame in taken if isinstance(frame, Completed)]
    whole = frames.joined(done) if done else None
    return whole if whole is not None and whole.job_ids else None


def _too_large(done: Completed, maximum: int) -> list[AttemptError]:
    logs = done.logs or [None] * len(done.job_ids)
    errors = []
    for job_id, attempt, output, text in zip(
        done.job_ids, done.attempts, done.outputs or (), logs, strict=True
    ):
        size = len(output or b"")
        message = f"the output has {size} bytes; {maximum} are allowed (output_max_bytes)"
        errors.append(AttemptError(job_id, attempt, OUTPUT_TOO_LARGE, message, False, text))
    return errors
