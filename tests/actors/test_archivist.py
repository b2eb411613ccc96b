"""What goes into the history: every finished job, and what schedules did but for launches."""

from __future__ import annotations

from typing import Any, cast

from actor_rig import Rig, virtual

from cluster.actors.archivist import Archivist
from cluster.history import History, PastEvent
from cluster.machine.commands import CancelJobs, PauseSchedule, PutSchedule, TriggerSchedule
from cluster.machine.effects import Finished
from cluster.machine.model import JobSpec


class Recorder:
    """A history that keeps what it was given."""

    def __init__(self) -> None:
        self.finished: list[Finished] = []
        self.events: list[PastEvent] = []

    def add(self, index: int, finished: list[Finished]) -> None:
        assert finished, "there is nothing to write"
        self.finished += finished

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
    assert [each.job.id for each in history.finished] == [1]
    told = [(each.kind, each.reason) for each in history.events]
    assert told == [("skipped", "overlap"), ("paused", "holidays")]
    numbers = [each.seq for each in history.events]
    assert numbers == sorted(set(numbers))
