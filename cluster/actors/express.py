"""The short way from submission to start: new jobs are assigned by the entry that creates them.

Assigning them later costs a second commit, which is most of the time that a job waits at a cluster
with free workers. Who gets them is what the next round of the dispatcher would decide; where that
is not plain, or jobs wait already, it is left to the dispatcher.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cluster.actors.capacity import Taker
from cluster.actors.desk import WorkerDesk
from cluster.actors.dispatcher import ASSIGN_JOBS_MAX, Dispatcher
from cluster.actors.proposer import Part, Proposer
from cluster.actors.services import OutcomeUnknown
from cluster.actors.session import Session
from cluster.machine.commands import AssignNew, JobGroup
from cluster.machine.levels import GATES
from cluster.machine.results import Given, Result
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import RaftState

LEVEL = GATES[AssignNew]
TAKERS_MAX = 64  # of one submission; of a batch for more workers the dispatcher deals the rest


class Express:
    """Says which commands shall stand behind a submission."""

    def __init__(
        self,
        raft: RaftState,
        proposer: Proposer,
        desk: WorkerDesk,
        ready: ReadyQueues,
        dispatcher: Dispatcher,
    ) -> None:
        self._raft = raft
        self._proposer = proposer
        self._desk = desk
        self._ready = ready
        self._dispatcher = dispatcher
        self._asking: set[asyncio.Task[None]] = set()

    def parts(self, groups: Sequence[JobGroup]) -> list[Part]:
        """Assignments of the jobs that these groups will create, each with who waits for it; their
        credit is taken. They mean the submission right before them in the same entry."""
        parts: list[Part] = []
        if not self._dispatcher.is_settled or self._raft.feature_level < LEVEL:
            return parts
        for group in groups:
            takers = self._takers(group)
            for taker in takers:
                taker.session.credit -= taker.share
                command = AssignNew(taker.session.worker_id, taker.share)
                parts.append((command, _Taking(self, *taker)))
            given = sum(taker.share for taker in takers)
            if given < len(group.payloads) or group.unique_keys is not None:
                break  # the next assignment would begin with what is left of this group
        return parts

    def _takers(self, group: JobGroup) -> list[Taker]:
        """Workers with room for jobs that are due and that no other comes before."""
        queue, name = group.spec.queue, group.spec.name
        if group.run_at_ms or self._ready.has_ready(queue, name):
            return []
        count = len(group.payloads)
        return self._desk.capacity.takers(queue, name, count, ASSIGN_JOBS_MAX, TAKERS_MAX)

    # -- answers ---------------------------------------------------------------------------------

    def settle(self, session: Session, reserved: int, result: Result) -> None:
        job_ids = result.job_ids if isinstance(result, Given) else []
        # Nobody else assigns a job for the first time: the number tells this attempt from later.
        jobs = self._raft.state.tables.jobs
        rows = [row for job_id in job_ids if (row := jobs.get(job_id)) and row.attempt == 1]
        self._dispatcher.deliver(session, rows, reserved)

    def miss(self, session: Session, reserved: int, error: Exception) -> None:
        """There is no answer, or nothing was proposed."""
        if isinstance(error, OutcomeUnknown):
            task = asyncio.create_task(self._find_out(session))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        else:
            self._dispatcher.deliver(session, [], reserved)

    async def _find_out(self, session: Session) -> None:
        """Nobody knows the ids of what may have been assigned. Once it is settled the worker has to
        introduce itself again and say what it runs: the rest is taken back from it. One that polls
        is asked that by every heartbeat."""
        if not await self._dispatcher.settled(session):
            return
        is_current = self._desk.sessions.get(session.worker_id) is session
        if is_current and session.sink is not None and not session.polls:
            session.sink.close_moved(self._raft.leader_http)


class _Taking:
    """Waits for one assignment's answer."""

    __slots__ = ("_express", "_reserved", "_session")

    def __init__(self, express: Express, session: Session, reserved: int) -> None:
        self._express = express
        self._session = session
        self._reserved = reserved

    def done(self) -> bool:
        return False

    def set_result(self, result: Result) -> None:
        self._express.settle(self._session, self._reserved, result)

    def set_exception(self, error: Exception) -> None:
        self._express.miss(self._session, self._reserved, error)

    def exception(self) -> None:
        """Seen to above."""
