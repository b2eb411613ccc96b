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
    "entries": exactly(2),  # submitted and assigned, completed
    "commands": exactly(3),
    "entries sent": exactly(2),  # to each follower: once, whatever the acknowledgements do
    "fsyncs": exactly(2),  # one per entry while nobody else submits
    "fsyncs of followers": exactly(2),
    "frames to followers": about(4, 0.5),  # entries, commit index, a heartbeat now and then
    "frames to the worker": exactly(2),  # the jobs, an acknowledgement
    "frames of the worker": exactly(1),  # results and credit
    "bytes to followers": about(105_900, 0.1),
    "journal bytes": about(105_900, 0.1),
    "bytes to the worker": about(106_000, 0.1),
    "bytes of the worker": about(4_050, 0.1),
    "history bytes": about(59_800),  # payloads of random digits
}

# Executed bytecode instructions of the steps of `bench.micro`, per operation.
STEPS = {
    "edge: group it by what jobs have in common": about(53.3),
    "machine: assign": about(82.1),
    "machine: complete": about(149.5),
    "machine: fail, retried": about(522.4),
    "machine: fail, dead": about(522.4),
    "machine: cancel, pending": about(578.0),
    "machine: launch by a schedule": about(752.5),
    "machine: snapshot, loaded": about(23.7),
    "timers: insert, within ten seconds": about(68.9),
    "timers: cancel": about(61.9),
    "timers: advance ten seconds, in steps of 10 ms": about(271.7),
    "derived: ready queues, taken from by the leader": about(31.6),
    "derived: ready queues, trimmed at a follower": about(9.2),
    "derived: metrics, assigned and completed": about(30.3),
    "disk: journal, entry of 200 B, one write for 100": about(106.6),
    "disk: journal, entry of 200 B, each written": about(316.5),
    "disk: journal, entry of 102 kB, each written": about(316.5),
    "disk: history, 1,000 finished jobs at a time": about(105.5),
    "wire: append with an entry of 200 B, encoded": about(201.1),
    "wire: append with an entry of 200 B, decoded": about(304.2),
    "wire: append with an entry of 102 kB, encoded": about(201.1),
    "wire: append with an entry of 102 kB, decoded": about(304.2),
    "wire: acknowledgement, encoded and decoded": about(299.2),
    "leader: submit, proposed and applied, 1,000 at a time": about(8.6),
    "leader: assign: chosen, proposed, applied, framed": about(222.5),
    "leader: complete, proposed and applied, 1,000 at a time": about(157.0),
    "leader: submit and assign, 10 at a time": about(1049.5),
    "leader: submit and assign, one at a time": about(7131.3),
    "worker: run a no-op, 1,000 at a time": about(376.6),
    "worker: run a no-op, one at a time": about(1550.4),
}

# Of one replica: the state, ready queues and metrics.
MEMORY = {
    "bytes per pending job": about(104.6),
    "bytes per running job": about(344.9),
    "blocks per pending job": Budget(0.01, 0.05),
    "blocks more per running job": about(2.99),
    "blocks left per finished job": Budget(0, 0.05),
}
