"""Builds that break one promise each: what a scenario is worth shows when it has to find them.

python -m chaos.live --scenario latecomers --minutes 1 --mutant any_attempt
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cluster.actors.desk import WorkerDesk
from cluster.machine.commands import CompleteJobs, CompleteMany, SubmitJobs
from cluster.machine.effects import Effects
from cluster.machine.registry import REDUCERS, Reducer
from cluster.machine.results import Result
from cluster.machine.state import State
from cluster.machine.tables import Block, Job
from cluster.projections.ready import Lane, Span

MUTANT_VARIABLE = "QUORATE_CHAOS_MUTANT"


def any_attempt() -> None:
    """The machine takes a worker's results of attempts that it has given up."""
    for kind in (CompleteJobs, CompleteMany):
        REDUCERS[kind] = _of_now(REDUCERS[kind])


def _of_now(honest: Reducer) -> Reducer:
    def complete(state: State, command: CompleteJobs | CompleteMany, effects: Effects) -> Result:
        rows = [state.tables.jobs.row(job_id) for job_id in command.job_ids]
        now = [row.attempt if row is not None else 0 for row in rows]
        return honest(state, msgspec.structs.replace(command, attempts=now), effects)

    return complete


def no_keys() -> None:
    """The machine forgets idempotency keys."""
    honest = REDUCERS[SubmitJobs]

    def submit(state: State, command: SubmitJobs, effects: Effects) -> Result:
        return honest(state, msgspec.structs.replace(command, request_key=""), effects)

    REDUCERS[SubmitJobs] = submit


def newest_first() -> None:
    """The leader gives out what became ready last."""

    def add(lane: Lane, entry: Job | Block) -> None:
        if isinstance(entry, Job):
            lane.add_first(entry)
        else:
            lane.level(entry.kind.spec.priority).appendleft(Span(entry))
            lane._jobs += entry.live

    Lane.add = add  # type: ignore[method-assign]


def too_much_credit() -> None:
    """The leader believes that a worker takes two more jobs for each slot that gets free."""
    honest = WorkerDesk.grant

    def grant(desk: WorkerDesk, worker_id: int, credit: int) -> None:
        honest(desk, worker_id, max(credit, 2 * credit))

    WorkerDesk.grant = grant  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant for mutant in (any_attempt, newest_first, no_keys, too_much_credit)
}
