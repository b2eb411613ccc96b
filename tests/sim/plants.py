"""Planted faults: each breaks one rule of the product, for as long as a test lets it.

They show that the simulation would notice. Nothing in the product knows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cluster.actors import scheduler
from cluster.actors.assigned import Assigned
from cluster.actors.desk import WorkerDesk
from cluster.actors.detector import Detector
from cluster.actors.dispatcher import Dispatcher
from cluster.actors.express import Express
from cluster.actors.planner import Planner
from cluster.actors.scheduler import Scheduler
from cluster.actors.session import Session
from cluster.machine import launching, overlap, unique
from cluster.machine.commands import CompleteJobs, FireSchedule
from cluster.machine.effects import Effects
from cluster.machine.reducers import occurrences
from cluster.machine.registry import REDUCERS
from cluster.machine.results import Given, Result
from cluster.machine.state import State
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import RaftState

Plant = Callable[[pytest.MonkeyPatch], None]


def fire_without_compare(patch: pytest.MonkeyPatch) -> None:
    """An occurrence is launched however often it is proposed."""
    original = REDUCERS[FireSchedule]

    def fire(state: State, command: FireSchedule, effects: Effects) -> Result:
        row = state.tables.schedules.get(command.schedule_id)
        if row is not None and row.timer is not None and row.next_fire_ms > state.now_ms:
            state.timers.drop(row.timer)
            row.timer, row.next_fire_ms = None, command.expected_fire_ms
        return original(state, command, effects)

    patch.setitem(REDUCERS, FireSchedule, fire)


def no_attempt_fence(patch: pytest.MonkeyPatch) -> None:
    """A result is accepted whichever attempt it belongs to."""
    original = REDUCERS[CompleteJobs]

    def complete(state: State, command: CompleteJobs, effects: Effects) -> Result:
        rows = [state.tables.jobs.get(job_id) for job_id in command.job_ids]
        newest = [row.attempt if row is not None else 0 for row in rows]
        unfenced = msgspec.structs.replace(command, worker_id=0, attempts=newest)
        return original(state, unfenced, effects)

    patch.setitem(REDUCERS, CompleteJobs, complete)


def ignore_request_keys(patch: pytest.MonkeyPatch) -> None:
    """A repeated submission creates its jobs again."""
    patch.setattr(unique, "find_request", lambda state, command: None)


def forget_what_was_taken(patch: pytest.MonkeyPatch) -> None:
    """Jobs whose assignment was refused do not return to the ready queue."""

    def take_back(self: Dispatcher, session: Session, jobs: list[Any]) -> None:
        session.refund(len(jobs))

    patch.setattr(Dispatcher, "_take_back", take_back)


def keep_the_credit(patch: pytest.MonkeyPatch) -> None:
    """Credit for jobs that were never sent is not given back."""
    patch.setattr(Session, "refund", lambda self, credit: None)


def ignore_lost_answers(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks what became of an assignment without an answer."""

    async def find_out(self: Dispatcher, session: Session, jobs: list[Any]) -> None:
        return

    patch.setattr(Dispatcher, "_find_out", find_out)


def promise_the_same_credit_twice(patch: pytest.MonkeyPatch) -> None:
    """The dispatcher gives away what new jobs were to take."""
    original = Express.parts

    def parts(self: Express, groups: Any) -> Any:
        before = {session: session.credit for session in self._desk.sessions.values()}
        made = original(self, groups)
        for session, credit in before.items():
            session.credit = credit
        return made

    patch.setattr(Express, "parts", parts)


def assign_new_jobs_twice(patch: pytest.MonkeyPatch) -> None:
    """What the entry has assigned is sent once more, as the next attempt."""
    original = Express.settle

    def settle(self: Express, session: Session, reserved: int, result: Result) -> None:
        original(self, session, reserved, result)
        for job_id in result.job_ids if isinstance(result, Given) else ():
            row = self._raft.state.tables.jobs.get(job_id)
            if row is not None and session.sink is not None:
                again = msgspec.structs.replace(row, attempt=row.attempt + 1)
                session.sink.send_jobs(Assigned([again]))

    patch.setattr(Express, "settle", settle)


def push_what_was_cancelled(patch: pytest.MonkeyPatch) -> None:
    """A job that was cancelled between assignment and push is sent all the same."""
    patch.setattr(Dispatcher, "_held", lambda self, session, jobs: jobs)


def keep_missing_assignments(patch: pytest.MonkeyPatch) -> None:
    """What a returning worker does not run stays assigned to it."""
    patch.setattr(WorkerDesk, "_missing", lambda self, worker_id, running: [])


def forget_the_last_leaders_workers(patch: pytest.MonkeyPatch) -> None:
    """Nobody watches registered workers that do not come back."""
    patch.setattr(Detector, "_adopt_workers", lambda self: None)


def forget_due_schedules(patch: pytest.MonkeyPatch) -> None:
    """A new leader launches only what becomes due under it."""

    async def on_start(self: Scheduler) -> None:
        self._active = True

    patch.setattr(Scheduler, "on_start", on_start)


def forget_what_was_missed(patch: pytest.MonkeyPatch) -> None:
    """What is not launched is not written down either."""
    original = scheduler._command

    def command(*arguments: Any) -> FireSchedule:
        return msgspec.structs.replace(original(*arguments), missed=[])

    patch.setattr(scheduler, "_command", command)


def launch_the_oldest_only(patch: pytest.MonkeyPatch) -> None:
    """Of several occurrences of one decision the first is launched."""
    original = scheduler._command

    def command(*arguments: Any) -> FireSchedule:
        made = original(*arguments)
        return msgspec.structs.replace(made, launches=(made.launches or [])[:1])

    patch.setattr(scheduler, "_command", command)


def forget_what_is_late(patch: pytest.MonkeyPatch) -> None:
    """Nothing waits for its turn after an outage."""
    patch.setattr(occurrences, "add_late", lambda *_: None)


def let_runs_overlap(patch: pytest.MonkeyPatch) -> None:
    """Whoever should be skipped runs."""
    patch.setitem(overlap.POLICIES, "skip", overlap.POLICIES["allow_all"])


def run_once_too_often(patch: pytest.MonkeyPatch) -> None:
    """max_executions is a bound that nobody keeps."""
    patch.setattr(launching, "is_used_up", lambda row: False)


def skip_what_a_pause_missed(patch: pytest.MonkeyPatch) -> None:
    """A schedule goes on after a pause and does not say what it left out."""
    original = Planner.resume

    async def resume(self: Planner, *arguments: Any) -> Any:
        return (await original(self, *arguments))._replace(missed=[])

    patch.setattr(Planner, "resume", resume)


def lose_half_a_backfill(patch: pytest.MonkeyPatch) -> None:
    """A backfill counts as finished when its first run was started."""

    def finish(state: Any, row: Any, backfill: Any, effects: Any) -> None:
        del backfill.waiting[:], backfill.buffer[:]
        backfill.finished_ms = state.now_ms

    patch.setattr(overlap, "finish_if_done", finish)


def truncate_before_the_history(patch: pytest.MonkeyPatch) -> None:
    """The log is dropped although the history has not been written."""

    async def before_truncate(self: RaftState, index: int) -> None:
        return

    patch.setattr(RaftState, "before_truncate", before_truncate)


def restore_without_ready_queues(patch: pytest.MonkeyPatch) -> None:
    """A node that begins with a snapshot does not know which jobs are ready."""
    patch.setattr(ReadyQueues, "rebuild", lambda self, state: None)


def let_replicas_differ(patch: pytest.MonkeyPatch) -> None:
    """A restored replica has lost its replicated time."""
    original = RaftState.restore

    def restore(self: RaftState, chunks: Any) -> None:
        original(self, chunks)
        self.state.totals.retries += 1

    patch.setattr(RaftState, "restore", restore)


PLANTS: tuple[Plant, ...] = (
    fire_without_compare,
    no_attempt_fence,
    ignore_request_keys,
    forget_what_was_taken,
    keep_the_credit,
    ignore_lost_answers,
    promise_the_same_credit_twice,
    assign_new_jobs_twice,
    push_what_was_cancelled,
    keep_missing_assignments,
    forget_the_last_leaders_workers,
    forget_due_schedules,
    forget_what_was_missed,
    launch_the_oldest_only,
    forget_what_is_late,
    let_runs_overlap,
    run_once_too_often,
    skip_what_a_pause_missed,
    lose_half_a_backfill,
    truncate_before_the_history,
    restore_without_ready_queues,
    let_replicas_differ,
)
