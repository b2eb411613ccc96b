"""When schedules fire: cron, intervals and dates through zones, clock changes and calendars.

Pure: the time is an argument, and whoever asks commits the answer to the log, so that releases of
tzdata and croniter never have to agree. A plan is checked once (`check`), then walked.
"""

from cluster.policy.timing.calendars import Calendars
from cluster.policy.timing.check import check
from cluster.policy.timing.errors import TimingError
from cluster.policy.timing.explain import explain
from cluster.policy.timing.hits import Note
from cluster.policy.timing.triggers import next_every_ms
from cluster.policy.timing.walk import Occurrence, Omitted, next_occurrence, search, walk
from cluster.policy.timing.windows import OFF_PEAK
from cluster.policy.timing.zones import RELEASES, local_text

__all__ = [
    "OFF_PEAK",
    "RELEASES",
    "Calendars",
    "Note",
    "Occurrence",
    "Omitted",
    "TimingError",
    "check",
    "explain",
    "local_text",
    "next_every_ms",
    "next_occurrence",
    "search",
    "walk",
]
