"""Successes that workers report one by one are booked together: those that wait for the same entry
share one command.

A worker whose jobs take seconds says one at a time that they are done. A hundred thousand of them
say ten thousand of them a second, and must not pay for a command, an encoding and a future each.
What waits behind entries in flight stays open for more until the proposer takes it, so a lone one
waits for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from cluster.actors.services import Overloaded
from cluster.machine.commands import Command, CompleteJobs, CompleteMany
from cluster.machine.levels import GATES
from cluster.machine.results import PerJob, Rejected, Result, Settled

if TYPE_CHECKING:
    from cluster.actors.proposer import Part, Proposer
    from cluster.raft_state import RaftState

LEVEL = GATES[CompleteMany]
GATHERED_JOBS_MAX = 2_000  # applying them holds up the loop for some milliseconds
GATHERED_BYTES_MAX = 256 << 10
WAITING_BYTES_MAX = 64 << 20

T = TypeVar("T")
Outputs = list[bytes | None] | None
Logs = list[str | None] | None


class Teller(Protocol):
    """Who is told what became of successes; exactly once, and not before `add` has returned."""

    def booked(self, refused: list[int], /) -> None:
        """All but these, whose attempts were not the worker's any more."""

    def failed(self, error: Exception, /) -> None:
        """NotLeader or Overloaded: not in any log. OutcomeUnknown: may or may not be."""


class Report(NamedTuple):
    """What one worker said, and who waits for the answer."""

    worker_id: int
    job_ids: list[int]
    attempts: list[int]
    outputs: Outputs
    logs: Logs
    teller: Teller

    def command(self) -> CompleteJobs:
        return CompleteJobs(self.worker_id, self.job_ids, self.attempts, self.outputs, self.logs)

    def told(self, result: Result) -> None:
        """The answer to `command`."""
        if isinstance(result, Settled):
            self.teller.booked(result.refused)
        else:
            self.teller.failed(Overloaded(f"the result was not booked: {result!r}"))


class Completions:
    """All successes on their way to the proposer."""

    def __init__(self, raft: RaftState, proposer: Proposer) -> None:
        self._raft = raft
        self._proposer = proposer
        self._open: _Gathered | None = None
        self.waiting_bytes = 0

    @property
    def may_share(self) -> bool:
        """Whether all members can read what is booked for several workers at once."""
        return self._raft.feature_level >= LEVEL

    def add(self, report: Report) -> None:
        """Raises NotLeader or Overloaded at once when nothing becomes of it."""
        gathered = self._open
        if gathered is None:
            if self.waiting_bytes >= WAITING_BYTES_MAX:
                raise Overloaded("too many results wait")
            gathered = _Gathered(self)
            self._proposer.propose_late(gathered)
            self._open = gathered
        gathered.add(report)

    def close(self, gathered: _Gathered) -> None:
        """Nothing more is added to it."""
        if self._open is gathered:
            self._open = None

    def one_by_one(self, reports: Sequence[Report]) -> None:
        """A command for each, so that what is wrong with one of them hurts nobody else."""
        for report in reports:
            try:
                self._proposer.propose_together([(report.command(), _Alone(report))])
            except Exception as error:  # whatever it is, somebody waits for an answer
                report.teller.failed(error)


class _Gathered:
    """One command in the making, and who waits for a part of its answer."""

    __slots__ = ("_bytes", "_home", "_jobs", "_reports")

    def __init__(self, home: Completions) -> None:
        self._home = home
        self._reports: list[Report] = []
        self._jobs = 0
        self._bytes = 0

    def add(self, report: Report) -> None:
        self._reports.append(report)
        self._jobs += len(report.job_ids)
        if report.outputs is not None or report.logs is not None:
            size = _size(report)
            self._bytes += size
            self._home.waiting_bytes += size
        if self._jobs >= GATHERED_JOBS_MAX or self._bytes >= GATHERED_BYTES_MAX:
            self._home.close(self)

    # -- what the proposer asks ------------------------------------------------------------------

    def parts(self) -> list[Part]:
        """The command as it goes into the log; nothing is added any more."""
        self._leave()
        if len(self._reports) > 1 and not self._home.may_share:
            return [(report.command(), _Alone(report)) for report in self._reports]
        return [(_command(self._reports), self)]

    def done(self) -> bool:
        return False

    def set_result(self, result: Result) -> None:
        reports = self._reports
        if len(reports) == 1:
            reports[0].told(result)
        elif isinstance(result, Settled):
            for report in reports:
                report.teller.booked([])
        elif isinstance(result, PerJob):
            self._tell(result.codes)
        else:
            self._home.one_by_one(reports)

    def _tell(self, codes: list[int]) -> None:
        ends = accumulate(len(report.job_ids) for report in self._reports)
        for report, end in zip(self._reports, ends, strict=True):
            own = zip(report.job_ids, codes[end - len(report.job_ids) : end], strict=True)
            report.teller.booked([job_id for job_id, code in own if code == Rejected.STALE_ATTEMPT])

    def set_exception(self, error: Exception) -> None:
        self._leave()
        for report in self._reports:
            report.teller.failed(error)

    def exception(self) -> None:
        """Seen to above."""

    def _leave(self) -> None:
        self._home.close(self)
        self._home.waiting_bytes -= self._bytes
        self._bytes = 0


class _Alone:
    """Waits for the answer to one report."""

    __slots__ = ("_report",)

    def __init__(self, report: Report) -> None:
        self._report = report

    def done(self) -> bool:
        return False

    def set_result(self, result: Result) -> None:
        self._report.told(result)

    def set_exception(self, error: Exception) -> None:
        self._report.teller.failed(error)

    def exception(self) -> None:
        """Seen to above."""


def _size(report: Report) -> int:
    return sum(map(len, filter(None, chain(report.outputs or (), report.logs or ()))))


def _command(reports: Sequence[Report]) -> Command:
    if len(reports) == 1:
        return reports[0].command()
    jobs = [report.job_ids for report in reports]
    return CompleteMany(
        [report.worker_id for report in reports],
        list(map(len, jobs)),
        list(chain.from_iterable(jobs)),
        list(chain.from_iterable(report.attempts for report in reports)),
        _column(jobs, [report.outputs for report in reports]),
        _column(jobs, [report.logs for report in reports]),
    )


def _column(
    jobs: Sequence[list[int]], columns: Sequence[list[T | None] | None]
) -> list[T | None] | None:
    """Columns of all reports as one; None when no report has one."""
    if not any(columns):
        return None
    whole: list[T | None] = []
    for ids, column in zip(jobs, columns, strict=True):
        whole += column if column is not None else [None] * len(ids)
    return whole
