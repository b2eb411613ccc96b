"""Metrics as plain integers, exported at scrape time. Job ids and payloads are never labels.

Counters come from the replicated totals, so every node shows the same and a failover resets
nothing; histograms are this node's own projection of effects since it started.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from cluster.machine import lifecycle, views
from cluster.machine.effects import Effects
from cluster.machine.state import State

BUCKETS_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 60_000, 600_000)

Samples = Callable[[], Mapping[str, float]]


class HistogramMs:
    """Fixed buckets over milliseconds, exported in seconds."""

    __slots__ = ("counts", "sum_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_MS) + 1)
        self.sum_ms = 0

    def observe(self, value_ms: int, times: int = 1) -> None:
        self.counts[bisect_left(BUCKETS_MS, value_ms)] += times
        self.sum_ms += value_ms * times

    def observe_all(self, values_ms: list[int]) -> None:
        """Jobs of one batch waited and ran for the same few numbers of milliseconds."""
        for value_ms, times in Counter(values_ms).items():
            self.observe(value_ms, times)

    def family(self, name: str, help_text: str) -> HistogramMetricFamily:
        buckets, running = [], 0
        for bound_ms, count in zip(BUCKETS_MS, self.counts, strict=False):
            running += count
            buckets.append((str(bound_ms / 1000), float(running)))
        buckets.append(("+Inf", float(running + self.counts[-1])))
        return HistogramMetricFamily(name, help_text, buckets, self.sum_ms / 1000)


class Metrics(Collector):
    """The node's `/metrics`. `state` is asked for at scrape time, as snapshots replace it."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, state: Callable[[], State], node_gauges: Samples) -> None:
        self._state = state
        self._node_gauges = node_gauges
        self._duration = HistogramMs()
        self._wait = HistogramMs()
        self._schedule_lag = HistogramMs()
        self._reads: Counter[str] = Counter()
        self._plain: list[Samples] = []
        self._labelled: list[tuple[str, str, str, Samples]] = []
        self._loop_lag = HistogramMs()
        self.observe_lag_ms = self._loop_lag.observe
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def feed(self, effects: Effects) -> None:
        if effects.jobs_assigned:
            self._wait.observe_all(
                [job.started_ms - job.run_at_ms for job in effects.jobs_assigned]
            )
        if effects.jobs_finished:
            self._duration.observe_all(
                [
                    finished.finished_ms - finished.job.started_ms
                    for finished in effects.jobs_finished
                    if finished.job.started_ms and finished.job.state != lifecycle.CANCELLED
                ]
            )
        for lag_ms in effects.schedule_lags_ms:
            self._schedule_lag.observe(lag_ms)

    def count_read(self, level: str) -> None:
        """A request that read replicated state was answered at this node."""
        self._reads[level] += 1

    def add_gauges(self, samples: Samples) -> None:
        """Gauges under the names that `samples` gives them."""
        self._plain.append(samples)

    def add_gauge(self, name: str, help_text: str, label: str, samples: Samples) -> None:
        """A gauge with one label; `samples` gives a number for each of the label's values."""
        self._labelled.append((name, help_text, label, samples))

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        state = self._state()
        totals = views.totals(state)
        yield from _counters(totals)
        yield from _gauges(state)
        reads = CounterMetricFamily("quorate_reads", "Reads answered here", labels=["level"])
        for level, count in sorted(self._reads.items()):
            reads.add_metric([level], count)
        yield reads
        yield self._duration.family("job_duration_seconds", "Execution time of ended attempts")
        yield self._wait.family("job_queue_wait_seconds", "From due to assigned")
        yield self._schedule_lag.family("schedule_lag_seconds", "From fire time to launch")
        yield self._loop_lag.family(
            "quorate_loop_lag_seconds", "How late the event loop came to a timer"
        )
        yield _missed(state)
        for plain in self._plain:
            for name, value in plain().items():
                yield GaugeMetricFamily(name, f"This node's {name}", value)
        for name, help_text, label, samples in self._labelled:
            gauge = GaugeMetricFamily(name, help_text, labels=[label])
            for which, value in sorted(samples().items()):
                gauge.add_metric([which], value)
            yield gauge
        for name, value in self._node_gauges().items():
            yield GaugeMetricFamily(f"quorate_{name}", f"This node's {name}", value)


def _counters(totals: dict[str, int]) -> Iterable[Metric]:
    for name, key, help_text in (
        ("jobs_scheduled", "submitted", "Jobs accepted"),
        ("jobs_completed", "completed", "Jobs completed"),
        ("jobs_failed", "failed", "Jobs that failed for good"),
        ("jobs_cancelled", "cancelled", "Jobs cancelled"),
        ("job_retries", "retries", "Attempts that failed and were retried"),
        ("workers_lost", "lost_workers", "Workers taken for dead"),
        ("schedule_fired", "fired", "Occurrences of schedules launched"),
        ("machine_bugs", "rejected_internal", "Commands refused because a reducer raised"),
    ):
        yield CounterMetricFamily(name, help_text, totals[key])


def _missed(state: State) -> Metric:
    family = CounterMetricFamily(
        "schedule_missed", "Occurrences of schedules that were not run", labels=["reason"]
    )
    for reason, count in sorted(views.missed(state).items()):
        family.add_metric([reason], count)
    return family


def _gauges(state: State) -> Iterable[Metric]:
    by_status = views.jobs_by_status(state)
    yield GaugeMetricFamily("jobs_pending_total", "Jobs that wait", by_status["pending"])
    yield GaugeMetricFamily("jobs_running_total", "Jobs that run", by_status["running"])
    yield GaugeMetricFamily("active_workers_total", "Registered workers", views.worker_count(state))
    yield GaugeMetricFamily("dead_letters_total", "Dead letters kept", views.dead_count(state))
    depth = GaugeMetricFamily("queue_depth", "Jobs by queue and state", labels=["queue", "state"])
    for queue in views.queues(state):
        for name in ("scheduled", "ready", "retrying", "running"):
            depth.add_metric([queue.name, name], getattr(queue, name))
    yield depth
