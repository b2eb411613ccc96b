"""Reducers, one file per entity. Importing this package registers them all."""

from cluster.machine.reducers import assignments, dead_letters, jobs, schedules, workers

__all__ = ["assignments", "dead_letters", "jobs", "schedules", "workers"]
