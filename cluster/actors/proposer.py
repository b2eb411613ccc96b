"""Group commit: commands that arrive while an entry is in flight share the next one.

A lone command pays nothing, a burst shares one entry, one fsync and one apply. Does not know what
any command means; a proposal without an answer is reported as unknown, never as failed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from cluster.actors.services import (
    DiskFull,
    LevelTooLow,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
)
from cluster.consensus import BUSY, DISK_FULL, Outcome
from cluster.machine.commands import Command
from cluster.machine.levels import GATES, HIGHEST_LEVEL
from cluster.machine.results import Rejected, Result
from cluster.raft_state import RaftState

ENTRIES_IN_FLIGHT_MAX = 2
BATCH_BYTES_TARGET = 1 << 20  # a single larger command still goes, alone
BATCH_COMMANDS_MAX = 2_000
QUEUE_COMMANDS_MAX = 20_000
QUEUE_BYTES_MAX = 128 << 20
DISK_FULL_RETRY_S = 5
QUEUE_WAIT_S = 5.0  # behind entries that do not commit; a client can do better than wait

_encode = msgspec.msgpack.Encoder().encode


class Answered(Protocol):
    """Who waits for a result: a future, or what hands it on to many."""

    def done(self) -> bool: ...
    def set_result(self, result: Result, /) -> None: ...
    def set_exception(self, error: Exception, /) -> None: ...
    def exception(self) -> object: ...


# Whose answer it is may be told by a later command (None).
Part = tuple[Command, Answered | None]


class LateCommands(Protocol):
    """Commands that are made only when their turn has come. They share an entry, side by side."""

    def parts(self) -> Sequence[Part]: ...
    def set_exception(self, error: Exception, /) -> None:
        """Nothing becomes of them: their turn did not come."""


class Waiting(NamedTuple):
    """What goes into the log together. It is encoded as soon as it cannot change any more."""

    late: LateCommands | None
    raws: list[msgspec.Raw]
    answers: list[Answered | None]
    size: int
    deadline: float


class Proposer:
    """Turns commands into log entries and results into answers."""

    def __init__(self, raft: RaftState) -> None:
        self._raft = raft
        self._queue: deque[Waiting] = deque()
        self._queue_bytes = 0
        self._in_flight = 0
        self._pump_scheduled = False
        self._tick_wanted = False
        self._expiry: asyncio.TimerHandle | None = None
        self.batches_total = 0
        self.commands_total = 0
        raft.on_leadership(self._on_leadership)

    def propose(self, command: Command) -> asyncio.Future[Result]:
        """The command's result once committed and applied.

        Raises NotLeader, Overloaded or LevelTooLow at once (nothing was proposed). The future
        raises NotLeader or Overloaded (not in any log) or OutcomeUnknown (may or may not commit).
        """
        return self.propose_all((command,))

    def propose_all(self, commands: Sequence[Command]) -> asyncio.Future[Result]:
        """The result of the last of some commands, for who reads from the state what became of the
        others: once it is known they are applied, or never will be. Raises as `propose`."""
        self._require_place()
        if self._raft.feature_level < HIGHEST_LEVEL:
            self._require_level(commands)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        deadline, last = loop.time() + QUEUE_WAIT_S, commands[-1]
        for command in commands:
            self._put(_encoded([(command, future if command is last else None)], deadline))
        self._added()
        return future

    def propose_together(self, parts: Sequence[Part]) -> None:
        """Commands that mean nothing one by one: they go into the same entry, side by side, or none
        of them does. Raises as `propose`."""
        self._require_place()
        if self._raft.feature_level < HIGHEST_LEVEL:
            self._require_level([command for command, _ in parts])
        self._put(_encoded(parts, asyncio.get_running_loop().time() + QUEUE_WAIT_S))
        self._added()

    def propose_late(self, late: LateCommands) -> None:
        """As `propose_together`, for commands that are made when their turn has come."""
        self._require_place()
        deadline = asyncio.get_running_loop().time() + QUEUE_WAIT_S
        self._put(Waiting(late, [], [], 0, deadline))
        self._added()

    def _put(self, waiting: Waiting) -> None:
        self._queue.append(waiting)
        self._queue_bytes += waiting.size

    def _require_place(self) -> None:
        if not self._raft.is_leader:
            raise NotLeader(self._raft.leader_http)
        if len(self._queue) >= QUEUE_COMMANDS_MAX or self._queue_bytes >= QUEUE_BYTES_MAX:
            raise Overloaded("the proposal queue is full")

    def _require_level(self, commands: Sequence[Command]) -> None:
        """Some member may not be able to read everything that this release writes."""
        for command in commands:
            needed = GATES[type(command)]
            if needed > self._raft.feature_level:
                raise LevelTooLow(type(command).__name__, needed, self._raft.feature_level)

    def _added(self) -> None:
        self._wake()
        if self._expiry is None and self._in_flight >= ENTRIES_IN_FLIGHT_MAX:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(QUEUE_WAIT_S, self._expire)

    def tick(self) -> None:
        """Let time pass in the log: the next batch goes even when there is no command."""
        self._tick_wanted = True
        self._wake()

    @property
    def queued(self) -> int:
        return len(self._queue)

    def _wake(self) -> None:
        if not self._pump_scheduled and self._in_flight < ENTRIES_IN_FLIGHT_MAX:
            self._pump_scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_scheduled = False
        if not self._raft.is_leader or self._in_flight >= ENTRIES_IN_FLIGHT_MAX:
            return
        if not self._queue and not self._tick_wanted:
            return
        self._tick_wanted = False
        raws, futures = self._gather()
        self._in_flight += 1
        self.batches_total += 1
        self.commands_total += len(raws)

        def answered(outcome: Outcome, results: object) -> None:
            self._in_flight -= 1
            self._resolve(futures, outcome, results)
            if self._queue or self._tick_wanted:
                self._wake()

        self._raft.propose_raw(raws, answered)

    def _gather(self) -> tuple[list[msgspec.Raw], list[Answered | None]]:
        raws: list[msgspec.Raw] = []
        futures: list[Answered | None] = []
        queue, size = self._queue, 0
        while queue:
            waiting = queue[0]
            if waiting.late is not None:
                waiting = queue[0] = _encoded(waiting.late.parts(), waiting.deadline)
                self._queue_bytes += waiting.size
            count = len(raws) + len(waiting.raws)
            if raws and (count > BATCH_COMMANDS_MAX or size + waiting.size > BATCH_BYTES_TARGET):
                break
            queue.popleft()
            size += waiting.size
            self._queue_bytes -= waiting.size
            raws += waiting.raws
            futures += waiting.answers
        return raws, futures

    def _resolve(self, futures: list[Answered | None], outcome: Outcome, results: object) -> None:
        if outcome is Outcome.APPLIED:
            answers = results if isinstance(results, list) else []
            if len(answers) != len(futures):
                # The entry did not decode (or consensus broke its word): it changed nothing.
                answers = [Rejected.UNDECODABLE] * len(futures)
            for future, result in zip(futures, answers, strict=True):
                if future is not None and not future.done():
                    if result is Rejected.STALE_EPOCH:
                        future.set_exception(NotLeader(self._raft.leader_http))
                        future.exception()
                    else:
                        future.set_result(result)
            return
        _fail(futures, self._error(outcome, results))

    def _error(self, outcome: Outcome, reason: object) -> Exception:
        if outcome is not Outcome.REFUSED:
            return OutcomeUnknown()
        if isinstance(reason, str) and reason.startswith(DISK_FULL):
            return DiskFull(reason, retry_after_s=DISK_FULL_RETRY_S)
        if isinstance(reason, str) and reason.startswith(BUSY):
            return Overloaded(reason)
        return NotLeader(self._raft.leader_http)

    def _expire(self) -> None:
        """What is in flight hangs (a majority's disks, say): those behind it are told in time."""
        self._expiry = None
        loop = asyncio.get_running_loop()
        while self._queue and self._queue[0].deadline <= loop.time():
            waiting = self._queue.popleft()
            self._queue_bytes -= waiting.size
            _refuse(waiting, Overloaded("what was proposed before does not commit"))
        if self._queue:
            self._expiry = loop.call_at(self._queue[0].deadline, self._expire)

    def _on_leadership(self, leads: bool) -> None:
        """Commands that wait when leadership ends were never proposed: definitely refused."""
        if leads:
            self._wake()
            return
        waiting, self._queue, self._queue_bytes = self._queue, deque(), 0
        error = NotLeader(self._raft.leader_http)
        for each in waiting:
            _refuse(each, error)


def _encoded(parts: Sequence[Part], deadline: float) -> Waiting:
    raws = [_encode(command) for command, _ in parts]
    answers = [answer for _, answer in parts]
    size = sum(map(len, raws))
    return Waiting(None, [msgspec.Raw(raw) for raw in raws], answers, size, deadline)


def _refuse(waiting: Waiting, error: Exception) -> None:
    """It is in no log."""
    if waiting.late is not None:
        waiting.late.set_exception(error)
    _fail(waiting.answers, error)


def _fail(answers: Sequence[Answered | None], error: Exception) -> None:
    for answer in answers:
        if answer is not None and not answer.done():
            answer.set_exception(error)
            answer.exception()  # whoever gave up waiting must not cause a warning
