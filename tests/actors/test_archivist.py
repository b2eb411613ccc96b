"""What goes into the history: every finished job, and what schedules did but for launches."""

from __future__ import annotations

from typing import Any, cast

from actor_rig import Rig, virtual

from cluster.actors.archivist import Archivist
from cluster.history import FinishedJob, History, PastEvent
from cluster.machine.commands import CancelJobs, PauseSchedule, PutSchedule, TriggerSchedule
from cluster.machine.model import JobSpec


class Recorder:
    """A history that keeps what it was given."""

    def __init__(self) -> None:
        self.rows: list[FinishedJob] = []
        self.events: list[PastEvent] = []

    def add(self, index: int, rows: list[FinishedJob]) -> None:
        assert rows, "there is nothing to write"
        self.rows += rows

    def add_schedule_events(self, index: int, events: list[PastEvent]) -> None:
        assert events, "there is nothing to write"
        self.events += events

    async def flushed(self, index: int) -> None:
        return None


@virtual
async def test_jobs_and_events_of_schedules_are_written_once_each() -> None:
    rig, history = Rig(), Recorder()
    Archivist(rig.raft, cast(History, history))
    await rig.lead([])
    put = PutSchedule("s", JobSpec("work"), b"null", "", 60_000, 1 << 50)
    for command in (
        put,
        TriggerSchedule("s"),
        TriggerSchedule("s", overlap="skip"),
        PauseSchedule("s", "holidays"),
        CancelJobs([1]),
    ):
        await rig.proposer.propose(cast(Any, command))
    assert [(row.job_id, row.schedule_id) for row in history.rows] == [(1, "s")]
    told = [(each.kind, each.reason) for each in history.events]
    assert told == [("skipped", "overlap"), ("paused", "holidays")]
    numbers = [each.seq for each in history.events]
    assert numbers == sorted(set(numbers))
