"""Jobs that come one by one leave together: those that wait for the same entry share one command.

A client with one job per request must not pay for a command, an encoding and a group of its own.
What waits behind entries in flight stays open for more until the proposer takes it; like jobs in a
row share a group. Each gets its own id, for ids of a command follow one another.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from cluster.actors.services import NotLeader, Overloaded
from cluster.machine.commands import JobGroup, SubmitJobs
from cluster.machine.results import Rejected, Result, Submitted

if TYPE_CHECKING:
    from cluster.actors.express import Express
    from cluster.actors.proposer import LateCommands, Part, Proposer

GATHERED_JOBS_MAX = 500
GATHERED_BYTES_MAX = 256 << 10
WAITING_BYTES_MAX = 64 << 20
FEW_JOBS = 20


def may_gather(group: JobGroup) -> bool:
    """Whether a group may share a command: who holds unique keys must be told one by one, and who
    is large already has nothing to gain."""
    return group.unique_keys is None and len(group.payloads) <= FEW_JOBS


class TakesLate(Protocol):
    """The proposer, or what stands for it in another process."""

    def propose_late(self, late: LateCommands, /) -> None: ...


class Gathering:
    """Lone submissions on their way to whoever proposes them."""

    def __init__(self, late_proposer: TakesLate) -> None:
        self._late_proposer = late_proposer
        self._open: _Gathered | None = None
        self.waiting_bytes = 0

    def submit(self, group: JobGroup) -> asyncio.Future[Submitted | Rejected]:
        """What became of the jobs of `group`. Raises as `Proposer.propose`, so does the future."""
        assert may_gather(group)
        gathered = self._open
        if gathered is None or gathered.is_closed:
            if self.waiting_bytes >= WAITING_BYTES_MAX:
                raise Overloaded("too many submissions wait")
            gathered = _Gathered(self)
            self._late_proposer.propose_late(gathered)
            self._open = gathered
        return gathered.add(group)

    def assignments(self, groups: list[JobGroup]) -> list[Part]:
        """What shall follow the command that creates these jobs."""
        return []


class Submissions(Gathering):
    """All submissions on their way to the proposer."""

    def __init__(self, proposer: Proposer, express: Express) -> None:
        super().__init__(proposer)
        self._proposer = proposer
        self._express = express

    def submit_alone(self, command: SubmitJobs) -> asyncio.Future[Result]:
        """A command of its own. Raises as `Proposer.propose`, so does the future."""
        assignments = self._express.parts(command.groups)
        if not assignments:
            return self._proposer.propose(command)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        try:
            self._proposer.propose_together([(command, future), *assignments])
        except (NotLeader, Overloaded) as error:
            for _, answer in assignments:
                if answer is not None:
                    answer.set_exception(error)
            raise
        return future

    def assignments(self, groups: list[JobGroup]) -> list[Part]:
        return self._express.parts(groups)


class _Gathered:
    """One command in the making, and who waits for a part of its answer."""

    __slots__ = ("_bytes", "_groups", "_home", "_jobs", "_waiting", "is_closed")

    def __init__(self, home: Gathering) -> None:
        self._home = home
        self._groups: list[JobGroup] = []
        self._waiting: list[tuple[asyncio.Future[Submitted | Rejected], int, int]] = []
        self._jobs = 0
        self._bytes = 0
        self.is_closed = False

    def add(self, group: JobGroup) -> asyncio.Future[Submitted | Rejected]:
        future = asyncio.get_running_loop().create_future()
        count = len(group.payloads)
        self._waiting.append((future, self._jobs, count))
        self._jobs += count
        size = sum(map(len, group.payloads))
        self._bytes += size
        self._home.waiting_bytes += size
        last = self._groups[-1] if self._groups else None
        if last is not None and _alike(last, group):
            last.payloads.extend(group.payloads)
        else:
            # A copy, for what is appended to it is not its owner's.
            self._groups.append(replace(group, payloads=list(group.payloads)))
        if self._jobs >= GATHERED_JOBS_MAX or self._bytes >= GATHERED_BYTES_MAX:
            self.is_closed = True
        return future

    # -- what the proposer asks ------------------------------------------------------------------

    def parts(self) -> list[Part]:
        """The command as it goes into the log, and what follows it; nothing is added any more."""
        self._leave()
        return [(SubmitJobs(self._groups), self), *self._home.assignments(self._groups)]

    def done(self) -> bool:
        return False

    def set_result(self, result: Result) -> None:
        # In the next turn: what is assigned goes to workers first, as who submitted waits for an
        # answer only, not for work.
        asyncio.get_running_loop().call_soon(self._tell, result)

    def _tell(self, result: Result) -> None:
        for future, offset, count in self._waiting:
            if future.done():
                continue  # nobody waits any more
            if isinstance(result, Submitted):
                future.set_result(Submitted(result.first + offset, count))
            else:
                assert isinstance(result, Rejected)
                future.set_result(result)

    def set_exception(self, error: Exception) -> None:
        self._leave()
        for future, _, _ in self._waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever gave up waiting must not cause a warning

    def exception(self) -> None:
        """Seen to above."""

    def _leave(self) -> None:
        self.is_closed = True
        self._home.waiting_bytes -= self._bytes
        self._bytes = 0


def _alike(one: JobGroup, other: JobGroup) -> bool:
    """Whether the jobs of both differ in nothing but their payloads."""
    return (
        one.spec == other.spec
        and one.run_at_ms == other.run_at_ms
        and one.expires_at_ms == other.expires_at_ms
        and one.deadline_ms == other.deadline_ms
    )
