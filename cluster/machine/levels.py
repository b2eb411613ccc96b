"""Feature levels: what a cluster may write, so that all of its members can read it.

The state carries a level. Nothing that a release brought is proposed, or written into a snapshot,
before the cluster has reached that release's level, and it is raised only when every member has
announced a release that knows it. So members of two releases serve one cluster, and until the level
is raised the older one may come back.

A new command, field or meaning gets a new level here; `tests/machine/test_levels.py` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

from cluster.machine import commands as c

# What each level brought.
FIRST, SCHEDULES, BLOCKS, MANY = 1, 2, 3, 4
LEVELS: dict[int, str] = {
    FIRST: "jobs, workers, plain schedules, dead letters",
    SCHEDULES: "plans, overlap policies, backlogs, backfills and calendars of schedules",
    BLOCKS: "AssignNew: assignments in the entry of the submission; blocks of jobs in snapshots",
    MANY: "AssignMany, CompleteMany: jobs and results of many workers in one command",
}
# Releases before SCHEDULES read the commands of schedules otherwise: none can share a cluster.
BASE_LEVEL = SCHEDULES  # of a cluster that was never raised
HIGHEST_LEVEL = MANY  # that this release knows
# Releases without levels wrote all of this into logs whose level is that of the beginning.
UNGATED_LEVEL = BLOCKS

# The level that a command needs to be proposed. RaiseLevel goes to none but releases that announce
# levels, and these all know it.
GATES: dict[type, int] = {
    c.SubmitJobs: FIRST,
    c.AssignJobs: FIRST,
    c.CompleteJobs: FIRST,
    c.FailJobs: FIRST,
    c.ReleaseJobs: FIRST,
    c.CancelJobs: FIRST,
    c.RetryJobs: FIRST,
    c.PurgeDead: FIRST,
    c.PutSchedule: FIRST,
    c.PauseSchedule: FIRST,
    c.ResumeSchedule: FIRST,
    c.FireSchedule: FIRST,
    c.TriggerSchedule: FIRST,
    c.DeleteSchedule: FIRST,
    c.RegisterWorker: FIRST,
    c.DrainWorker: FIRST,
    c.RemoveWorker: FIRST,
    c.UpdateWorker: FIRST,
    c.StartBackfill: SCHEDULES,
    c.StopBackfill: SCHEDULES,
    c.PutCalendar: SCHEDULES,
    c.DeleteCalendar: SCHEDULES,
    c.ReplanSchedule: SCHEDULES,
    c.SetReleases: SCHEDULES,
    c.AssignNew: BLOCKS,
    c.AssignMany: MANY,
    c.CompleteMany: MANY,
    c.RaiseLevel: BASE_LEVEL,
}
# The same for fields that were appended to a command, or to a value inside of one, after FIRST. Who
# fills such a field in asks for its level: an older release reads the command without it.
FIELDS: dict[str, int] = {
    "PutSchedule.plan": SCHEDULES,
    "PutSchedule.overlap": SCHEDULES,
    "PutSchedule.max_executions": SCHEDULES,
    "PutSchedule.next_nominal_ms": SCHEDULES,
    "PutSchedule.paused": SCHEDULES,
    "PutSchedule.note": SCHEDULES,
    "PutSchedule.expected_version": SCHEDULES,
    "PutSchedule.reason": SCHEDULES,
    "ResumeSchedule.next_nominal_ms": SCHEDULES,
    "ResumeSchedule.missed": SCHEDULES,
    "FireSchedule.next_nominal_ms": SCHEDULES,
    "FireSchedule.launches": SCHEDULES,
    "FireSchedule.late": SCHEDULES,
    "FireSchedule.missed": SCHEDULES,
    "FireSchedule.version": SCHEDULES,
    "FireSchedule.ended": SCHEDULES,
    "TriggerSchedule.changes": SCHEDULES,
    "TriggerSchedule.overlap": SCHEDULES,
}


def is_known(command: type, level: int) -> bool:
    """Whether a cluster at this level applies the command: one of a later level is refused like one
    that cannot be read, as an older member does that has never heard of it."""
    return GATES.get(command, 0) <= max(level, UNGATED_LEVEL)


class Support(NamedTuple):
    """The levels that a member's release knows. `held` is the highest that its operator lets the
    cluster be raised to, `born` the highest that was known when its data folder was new; 0: none
    is set, or the folder is older than levels."""

    highest: int
    lowest: int = BASE_LEVEL
    held: int = 0
    born: int = 0

    @property
    def willing(self) -> int:
        return min(self.highest, self.held or self.highest)

    @classmethod
    def read(cls, meta: Mapping[str, str]) -> Self | None:
        """What a member told about itself; None for a release that knows no levels."""
        words = meta.get("levels", "").split()
        if len(words) < len(cls._fields) or not all(map(str.isdecimal, words)):
            return None
        highest, lowest, held, born = map(int, words[: len(cls._fields)])
        return cls(highest, lowest, held, born)

    def meta(self) -> dict[str, str]:
        """To be told to the other members."""
        return {"levels": " ".join(map(str, self))}


OWN = Support(HIGHEST_LEVEL)


def refusal(level: int, highest: int) -> str:
    """Why a release that knows no more than `highest` must not go on; "" if it may."""
    if level <= highest:
        return ""
    return (
        f"the data is at feature level {level}, this release knows levels up to {highest}: use "
        f"a release that knows level {level}; a cluster never goes back to a lower one"
    )
