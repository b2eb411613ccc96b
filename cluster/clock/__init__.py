"""The one place that reads a clock, so that whoever needs the time says so in its signature.

It offers no sleeping: waiting belongs to the event loop, and a timer that matters to the cluster
belongs to the replicated timer wheel.
"""

from cluster.clock.guard import Change, Guard, Votes, agreement
from cluster.clock.guarded import GuardedClock, Reading
from cluster.clock.system import Clock, ManualClock, SystemClock, elapsed_ms

__all__ = [
    "Change",
    "Clock",
    "Guard",
    "GuardedClock",
    "ManualClock",
    "Reading",
    "SystemClock",
    "Votes",
    "agreement",
    "elapsed_ms",
]
