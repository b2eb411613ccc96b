"""What the node's histograms make of effects."""

from __future__ import annotations

from cluster.machine import lifecycle
from cluster.machine.effects import Finished, new_effects
from cluster.machine.model import JobSpec
from cluster.machine.state import State
from cluster.machine.tables import Job, QueueRow, SpecRow
from cluster.projections.metrics import BUCKETS_MS, HistogramMs, Metrics

KIND = SpecRow(JobSpec("send"), QueueRow("default"), ("default", "send"))
COMPLETED, CANCELLED = lifecycle.COMPLETED, lifecycle.CANCELLED


def row(state: int, run_at_ms: int, started_ms: int) -> Job:
    return Job(1, KIND, b"", state, 0, run_at_ms, started_ms=started_ms)


def test_equal_values_count_as_often_as_they_come() -> None:
    one_by_one, together = HistogramMs(), HistogramMs()
    values = [0, 1, 2, 2, 2, 3, 600_000, 600_001, 600_001]
    for value_ms in values:
        one_by_one.observe(value_ms)
    together.observe_all(values)
    assert together.counts == one_by_one.counts
    assert sum(together.counts) == len(values)
    assert together.counts[len(BUCKETS_MS)] == 2
    assert together.sum_ms == sum(values)


def test_waits_and_durations_come_from_what_was_assigned_and_what_ended() -> None:
    metrics = Metrics(State, dict)
    effects = new_effects()
    effects.jobs_assigned = [
        row(lifecycle.RUNNING, 100, 103),
        row(lifecycle.RUNNING, 100, 103),
        row(lifecycle.RUNNING, 100, 900),
    ]
    effects.jobs_finished = [
        Finished(row(COMPLETED, 0, 100), 104),
        Finished(row(lifecycle.FAILED, 0, 100), 104),
        Finished(row(COMPLETED, 0, 100), 9_100),
        Finished(row(CANCELLED, 0, 100), 104),  # was stopped: says nothing about the task
        Finished(row(lifecycle.FAILED, 0, 0), 104),  # never ran
    ]
    metrics.feed(effects)
    metrics.feed(new_effects())
    waits = metrics._wait
    assert (sum(waits.counts), waits.sum_ms) == (3, 806)
    durations = metrics._duration
    assert (sum(durations.counts), durations.sum_ms) == (3, 9_008)
