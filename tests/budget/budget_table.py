"""What a job may cost, in counts: bytes, frames, entries, instructions, memory.

Counts are the same on a busy machine, so a bound can be tight. Whoever makes something cheaper
lowers the bound to what is measured then and `margin` above; whoever has to raise one says why in
the commit. What is measured: one batch of 1,000 no-op jobs of 100 bytes on three nodes with one
worker, all in one process (`budget_rig`). Measured 2026-11-21, Python 3.11.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """`measured` when it was last set; more than `limit` is a regression."""

    measured: float
    limit: float


def about(measured: float, margin: float = 0.15) -> Budget:
    return Budget(measured, measured * (1 + margin))


def exactly(measured: float) -> Budget:
    """Of small whole numbers: one more is too much."""
    return Budget(measured, measured + 0.5)


# Per 1,000 jobs in one batch.
COUNTS = {
    "entries": exactly(3),  # submit, assign, complete
    "commands": exactly(3),
    "entries sent": exactly(3),  # to each follower: once, whatever the acknowledgements do
    "fsyncs": exactly(3),  # one per entry while nobody else submits
    "fsyncs of followers": exactly(3),
    "frames to followers": about(6, 0.5),  # entries, commit index, a heartbeat now and then
    "frames to the worker": exactly(2),  # the jobs, an acknowledgement
    "frames of the worker": exactly(1),  # results and credit
    "bytes to followers": about(109_300, 0.1),
    "journal bytes": about(109_251, 0.1),
    "bytes to the worker": about(128_016, 0.1),
    "bytes of the worker": about(7_013, 0.1),
    "history bytes": about(4_096, 0.3),  # whole pages; payloads of one letter compress well
}

# Executed bytecode instructions per job, on all three nodes together; see `steps`. What runs by the
# clock (the ticks of consensus and of the event loop) depends on how slow the machine is.
STEPS = {
    "cluster/api": about(84),
    "cluster/actors": about(470),
    "cluster/history": about(123),
    "cluster/machine": about(822),
    "cluster/projections": about(396),
    "quorate": about(424),
    "cluster/consensus": about(550, 1.5),
    "libraries": about(550, 1.0),
}

# Of one replica: the state, ready queues and metrics.
MEMORY = {
    "bytes per pending job": about(314.5),
    "blocks per pending job": about(3),
    "blocks more per running job": about(0.98),
    "blocks left per finished job": Budget(0, 0.05),
}
