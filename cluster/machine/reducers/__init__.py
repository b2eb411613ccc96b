"""Reducers, one file per entity. Importing this package registers them all."""

from cluster.machine.reducers import (
    assignments,
    backfills,
    calendars,
    dead_letters,
    jobs,
    levels,
    occurrences,
    schedules,
    workers,
)

__all__ = [
    "assignments",
    "backfills",
    "calendars",
    "dead_letters",
    "jobs",
    "levels",
    "occurrences",
    "schedules",
    "workers",
]
