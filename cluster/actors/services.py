"""What the HTTP edge may ask of a node: the one seam between `cluster.api` and everything below.

Errors that `propose` and the worker desk raise are here too, so that the edge maps each to a
status once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from cluster.actors.assigned import Assigned
    from cluster.actors.clockwatch import ClockWatch
    from cluster.actors.desk import WorkerDesk
    from cluster.actors.fetcher import Fetcher
    from cluster.actors.live import LiveBoard
    from cluster.actors.planner import Planner
    from cluster.actors.polls import PollDesk
    from cluster.actors.proposer import Proposer
    from cluster.actors.submissions import Submissions
    from cluster.actors.upgrader import Upgrader
    from cluster.actors.waiters import Waiters
    from cluster.backup.take import Source
    from cluster.clock import Clock
    from cluster.history import History
    from cluster.projections.metrics import Metrics
    from cluster.raft_state import RaftState
    from cluster.settings import Settings
    from cluster.vitals import Vitals


class NotLeader(Exception):
    """This node does not lead (any more); nothing was changed. `leader_http` may be None."""

    def __init__(self, leader_http: str | None) -> None:
        super().__init__(f"not the leader; leader: {leader_http}")
        self.leader_http = leader_http


class Overloaded(Exception):
    """Too much is waiting already; nothing was changed. Try again after `retry_after_s`."""

    def __init__(self, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class DiskFull(Overloaded):
    """A majority of disks, or the leader's, takes no more; nothing was changed."""


class OutcomeUnknown(Exception):
    """The proposal may or may not commit; retry with the same idempotency key."""


class LevelTooLow(Exception):
    """A member of an older release could not read this; nothing was changed."""

    def __init__(self, command: str, needed: int, level: int) -> None:
        super().__init__(
            f"{command} needs feature level {needed}, the cluster is at {level}: run releases that "
            "know it on all nodes, then `quorate cluster upgrade`"
        )


class Assignment(Struct, array_like=True, frozen=True, gc=False):
    """One attempt as a worker receives it, in wire order. `deadline_ms` is epoch ms, 0 none."""

    job_id: int
    attempt: int
    name: str
    queue: str
    payload: bytes
    timeout_ms: int
    deadline_ms: int
    failures: int
    max_retries: int


class LikeJobs(Struct, array_like=True, tag="like", frozen=True, gc=False):
    """Jobs of one kind without deadlines as a worker receives them, in wire order. `failures` is
    None when none of them has failed yet."""

    name: str
    queue: str
    timeout_ms: int
    max_retries: int
    job_ids: list[int]
    attempts: list[int]
    payloads: list[bytes]
    failures: list[int] | None = None


class AttemptError(Struct, array_like=True, frozen=True, gc=False):
    """A failure as a worker reports it, in wire order."""

    job_id: int
    attempt: int
    error_type: str
    error_message: str
    retryable: bool = True
    log: str | None = None


class Sink(Protocol):
    """Where a worker's connection takes what the leader sends. Calls never block or raise."""

    def send_jobs(self, jobs: Assigned) -> None: ...
    def send_cancel(self, attempts: list[tuple[int, int]]) -> None: ...
    def send_stop(self, attempts: list[tuple[int, int]]) -> None:
        """As a cancellation, but the worker shall say how each of them ended."""

    def send_drain(self) -> None: ...
    def close_moved(self, leader_http: str | None) -> None:
        """This node leads no more: tell the worker where to go and close."""


@dataclass
class Services:
    """Everything the edge uses. Built by the node's composition root."""

    settings: Settings
    clock: Clock
    raft: RaftState
    proposer: Proposer
    desk: WorkerDesk
    polls: PollDesk
    waiters: Waiters
    live: LiveBoard
    history: History
    metrics: Metrics
    clocks: ClockWatch
    planner: Planner
    submissions: Submissions
    backups: Source
    upgrades: Upgrader
    vitals: Vitals
    fetcher: Fetcher
    draining: bool = False
