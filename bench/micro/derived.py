"""What every node derives from effects: ready queues, metrics, and what the history is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from bench.micro import replay
from bench.micro.replay import book, state_after
from bench.micro.timing import Step, Work
from cluster.actors.archivist import Archivist
from cluster.history import History
from cluster.projections.metrics import Metrics
from cluster.projections.ready import ReadyQueues
from cluster.raft_state import EffectsListener, RaftState


def steps(jobs: int, folder: Path) -> list[Step]:
    return [
        Step("ready queues, fed with submissions", jobs, lambda: _ready(jobs)),
        Step("ready queues, taken from by the leader", jobs, lambda: _taking(jobs)),
        Step("ready queues, trimmed at a follower", jobs, lambda: _trimming(jobs)),
        Step("metrics, assigned and completed", jobs, lambda: _metrics(jobs)),
        Step("history, handed over", jobs, lambda: _archiving(jobs)),
    ]


def _ready(jobs: int) -> Work:
    ready, submitted = ReadyQueues(), book(state_after(), replay.submissions(jobs))
    return lambda: [ready.feed(each) for each in submitted]


def _taking(jobs: int) -> Work:
    ready = ReadyQueues()
    for each in book(state_after(), replay.submissions(jobs)):
        ready.feed(each)
    lanes = ready.lanes_of(("default",), ("noop",))
    return lambda: [ready.take(lanes, replay.BATCH) for _ in range(jobs // replay.BATCH)]


def _trimming(jobs: int) -> Work:
    ready, state = ReadyQueues(), state_after()
    for each in book(state, replay.submissions(jobs)):
        ready.feed(each)
    assigned = book(state, replay.assignments(jobs))
    return lambda: [ready.feed(each) for each in assigned]


def _metrics(jobs: int) -> Work:
    metrics, state = Metrics(lambda: state, dict), state_after(replay.submissions(jobs))
    assigned = book(state, replay.assignments(jobs))
    completed = book(state, replay.completions(jobs))
    return lambda: [metrics.feed(each) for each in (*assigned, *completed)]


class _Subscribed:
    """Stands for the replica: keeps who wants to hear of effects."""

    listeners: list[EffectsListener]

    def __init__(self) -> None:
        self.listeners = []

    def on_effects(self, listener: EffectsListener) -> None:
        self.listeners.append(listener)

    def on_restored(self, listener: Callable[[Any], None]) -> None: ...

    def before_truncation(self, gate: Callable[[int], Awaitable[None]]) -> None: ...


class _Shelf:
    """Stands for the history: takes rows, as its buffer does."""

    def __init__(self) -> None:
        self.rows: list[object] = []

    def add(self, index: int, rows: list[object]) -> None:
        self.rows += rows

    async def flushed(self, index: int) -> None: ...


def _archiving(jobs: int) -> Work:
    raft = _Subscribed()
    Archivist(cast(RaftState, raft), cast(History, cast(Any, _Shelf())))
    (listener,) = raft.listeners
    state = state_after(replay.submissions(jobs), replay.assignments(jobs))
    completed = book(state, replay.completions(jobs))
    return lambda: [listener(each, index) for index, each in enumerate(completed)]
